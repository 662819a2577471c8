//! A 3-D simulation on several ranks that is killed in the middle of a save, restarts from the last
//! good checkpoint, and ends bitwise equal to a run that nobody disturbed.
//!
//! `cargo run --release --example multi_shard_checkpoint -- [--base URI] [--size CELLS] [--ranks N]
//! [--steps N] [--every N] [--keep]`
//!
//! The disturbed run is a process of its own, killed with SIGKILL: what it leaves on the storage is all
//! that the restart has.

mod simulation;

use std::process::{Command, ExitCode};
use std::sync::{Barrier, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, raise};
use simulation::{Links, Slab, ring};
use syncline::checkpoint::{CheckpointStore, GarbageKind, Manifest, ShardMeta};
use syncline::{AlignedVec, Timestamp, WriteReport};

type AnyResult<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// What is simulated, and where it is saved.
#[derive(Debug, Clone)]
struct Plan {
    base: String,
    size: usize,
    ranks: usize,
    steps: u64,
    every: u64,
    keep: bool,
    role: Role,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Starts the other two as processes and compares.
    Whole,
    /// Runs from the start and is killed in the middle of its second save.
    Doomed,
    /// Runs from the newest checkpoint to the end.
    Resumed,
}

fn main() -> ExitCode {
    let outcome = Plan::from_arguments().and_then(|plan| match plan.role {
        Role::Whole => tell(&plan),
        Role::Doomed => run_saving(&plan, None),
        Role::Resumed => {
            let manifest = CheckpointStore::open(&plan.base)?.reader().latest()?;
            run_saving(&plan, Some(manifest.ok_or("there is no checkpoint to restart from")?))
        }
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("multi_shard_checkpoint: {error}");
            ExitCode::FAILURE
        }
    }
}

impl Plan {
    fn from_arguments() -> AnyResult<Plan> {
        let scratch = std::env::temp_dir().join(format!("syncline-example-{}", std::process::id()));
        let mut plan = Plan {
            base: format!("direct://{}", scratch.display()),
            size: 192,
            ranks: 4,
            steps: 60,
            every: 15,
            keep: false,
            role: Role::Whole,
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(name) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{name} needs a value"));
            match name.as_str() {
                "--base" => (plan.base, plan.keep) = (value()?, true),
                "--size" => plan.size = value()?.parse()?,
                "--ranks" => plan.ranks = value()?.parse()?,
                "--steps" => plan.steps = value()?.parse()?,
                "--every" => plan.every = value()?.parse()?,
                "--keep" => plan.keep = true,
                "--doomed" => plan.role = Role::Doomed,
                "--resumed" => plan.role = Role::Resumed,
                other => return Err(format!("unknown argument {other}").into()),
            }
        }
        if plan.ranks == 0
            || plan.size < plan.ranks
            || plan.every == 0
            || plan.steps <= 2 * plan.every
        {
            return Err(
                "there must be ranks, no more than cells, and steps after the second save".into()
            );
        }
        Ok(plan)
    }

    fn state_mib(&self) -> f64 {
        (self.size.pow(3) * 2 * size_of::<f64>()) as f64 / f64::from(1 << 20)
    }

    /// Runs this program again in another role.
    fn spawn(&self, role: &str) -> AnyResult<std::process::ExitStatus> {
        let [size, ranks, steps, every] =
            [self.size as u64, self.ranks as u64, self.steps, self.every].map(|n| n.to_string());
        let arguments = [
            role, "--base", &self.base, "--size", &size, "--ranks", &ranks, "--steps", &steps,
            "--every", &every,
        ];
        Ok(Command::new(std::env::current_exe()?).args(arguments).status()?)
    }
}

/// The whole story, with its proof.
fn tell(plan: &Plan) -> AnyResult<()> {
    let Plan { size, ranks, steps, every, .. } = plan;
    println!(
        "Gray-Scott on {size}^3 cells, {ranks} ranks, {steps} steps, a checkpoint every {every}"
    );
    println!("state {:.1} MiB, base {}", plan.state_mib(), plan.base);
    let checkpoints = CheckpointStore::open(&plan.base)?;
    if checkpoints.reader().latest()?.is_some() {
        return Err(format!("{} holds checkpoints already: choose an empty base", plan.base).into());
    }

    println!("\n1. a run that nobody disturbs, and that saves nothing");
    let started = Instant::now();
    let undisturbed = run_undisturbed(plan)?;
    println!("   {steps} steps in {:.1} s", started.elapsed().as_secs_f64());
    let ranges = undisturbed.iter().map(Slab::range_of_v);
    let (low, high) = ranges.fold((f64::MAX, f64::MIN), |a, b| (a.0.min(b.0), a.1.max(b.1)));
    println!("   v lies between {low:.4} and {high:.4}");

    println!("\n2. the same, killed in the middle of its second save");
    let status = plan.spawn("--doomed")?;
    println!("   ended: {status}");
    if status.success() {
        return Err("the run was to be killed".into());
    }

    println!("\n3. what it left");
    show(&checkpoints)?;

    println!("\n4. restart from the newest checkpoint");
    if !plan.spawn("--resumed")?.success() {
        return Err("the restarted run failed".into());
    }

    println!("\n5. proof");
    let equal = compare(plan, &checkpoints, &undisturbed)?;
    if plan.keep {
        println!("   the checkpoints stay in {}", plan.base);
    } else {
        let removed = checkpoints.gc(Duration::ZERO, true)?.garbage.len();
        checkpoints.store().delete_prefix(&plan.base)?;
        println!("   {removed} leftovers of the killed run collected, the checkpoints removed");
    }
    if equal { Ok(()) } else { Err("the restarted run differs from the undisturbed one".into()) }
}

/// Runs each rank in a thread.
fn on_ranks<T: Send>(
    plan: &Plan,
    body: impl Fn(usize, &Links) -> AnyResult<T> + Sync,
) -> AnyResult<Vec<T>> {
    let links = ring(plan.ranks);
    std::thread::scope(|scope| {
        let body = &body;
        let spawn = |(rank, links): (usize, Links)| scope.spawn(move || body(rank, &links));
        let threads: Vec<_> = links.into_iter().enumerate().map(spawn).collect();
        threads.into_iter().map(|thread| thread.join().map_err(|_| "a rank panicked")?).collect()
    })
}

fn run_undisturbed(plan: &Plan) -> AnyResult<Vec<Slab>> {
    on_ranks(plan, |rank, links| {
        let mut slab = Slab::initial(plan.size, rank, plan.ranks)?;
        for _ in 0..plan.steps {
            slab.step(links);
        }
        Ok(slab)
    })
}

/// Runs to the end, saving as it goes, from `restart` or from the start.
fn run_saving(plan: &Plan, restart: Option<Manifest>) -> AnyResult<()> {
    let checkpoints = CheckpointStore::open(&plan.base)?;
    let first = restart.as_ref().map_or(0, |manifest| manifest.global_step);
    let meeting = Meeting::new(plan.ranks);
    let restoring = Instant::now();
    on_ranks(plan, |rank, links| {
        let mut slab = Slab::initial(plan.size, rank, plan.ranks)?;
        if let Some(manifest) = &restart {
            let mut offset = 0;
            for array in slab.arrays_mut() {
                checkpoints.reader().read_shard_range_into(manifest, rank as u32, offset, array)?;
                offset += array.len() as u64;
            }
            meeting.barrier.wait();
            if rank == 0 {
                let seconds = restoring.elapsed().as_secs_f64();
                let rate = plan.state_mib() / seconds;
                println!("   step {first} restored and verified: {seconds:.2} s, {rate:.0} MiB/s");
            }
        }
        for step in first + 1..=plan.steps {
            slab.step(links);
            if step.is_multiple_of(plan.every) || step == plan.steps {
                let doomed = plan.role == Role::Doomed && step == 2 * plan.every;
                save(plan, &checkpoints, &meeting, rank, step, &slab, doomed)?;
            }
        }
        Ok(())
    })?;
    Ok(())
}

/// What the ranks share for a save: MPI codes would broadcast and gather.
struct Meeting {
    barrier: Barrier,
    timestamp: Mutex<Timestamp>,
    shards: Mutex<Vec<(ShardMeta, WriteReport)>>,
}

impl Meeting {
    fn new(ranks: usize) -> Meeting {
        Meeting {
            barrier: Barrier::new(ranks),
            timestamp: Mutex::new(Timestamp::now()),
            shards: Mutex::default(),
        }
    }

    /// Rank 0's clock names the save, for all.
    fn broadcast_timestamp(&self, rank: usize) -> Timestamp {
        if rank == 0 {
            *self.timestamp.lock().unwrap() = Timestamp::now();
        }
        self.barrier.wait();
        self.timestamp.lock().unwrap().clone()
    }
}

fn save(
    plan: &Plan,
    checkpoints: &CheckpointStore,
    meeting: &Meeting,
    rank: usize,
    step: u64,
    slab: &Slab,
    doomed: bool,
) -> AnyResult<()> {
    let layout = checkpoints.layout(step, meeting.broadcast_timestamp(rank));
    let started = Instant::now();
    let checkpoint_writer = checkpoints.writer(plan.ranks as u32, rank as u32)?;
    let (mut writer, key) =
        checkpoint_writer.get_shard_writer_sized(&layout, slab.shard_bytes() as u64)?;
    for (n, array) in slab.arrays().into_iter().enumerate() {
        if doomed && n == 1 && rank == plan.ranks - 1 {
            println!("   step {step}: rank {rank} has saved one of its two arrays and is killed");
            raise(Signal::SIGKILL)?;
        }
        // The array goes to the storage from where it is; it may change as soon as the call returns.
        writer.write_borrowed(array)?;
    }
    let report = writer.report();
    let shard = checkpoint_writer.finalize_writer_to_shard_meta(&layout, key, writer)?;
    meeting.shards.lock().unwrap().push((shard, report));
    meeting.barrier.wait();
    if rank == 0 {
        let (shards, reports): (Vec<_>, Vec<_>) = meeting.shards.lock().unwrap().drain(..).unzip();
        checkpoint_writer.finalize_checkpoint(&layout, "gray-scott", 0, shards, None)?;
        let seconds = started.elapsed().as_secs_f64();
        let copied: u64 = reports.iter().map(|report| report.copied_bytes).sum();
        println!(
            "   step {step} saved: {} shards, {seconds:.2} s, {:.0} MiB/s, {}, {copied} bytes copied",
            plan.ranks,
            plan.state_mib() / seconds,
            reports[0].mode
        );
    }
    meeting.barrier.wait();
    Ok(())
}

fn show(checkpoints: &CheckpointStore) -> AnyResult<()> {
    for checkpoint in checkpoints.reader().list_checkpoints()? {
        let report = checkpoints.verify(&checkpoint, &|_| {})?;
        let state = if report.is_good() { "whole, every byte verified" } else { "damaged" };
        println!("   checkpoint of step {}: {state}", checkpoint.step);
    }
    let garbage = checkpoints.gc(Duration::ZERO, false)?.garbage;
    let count = |kind| garbage.iter().filter(|item| item.kind == kind).count();
    println!(
        "   of the save that was cut short: {} whole shards, {} unfinished; no manifest, so no checkpoint",
        count(GarbageKind::Shard),
        count(GarbageKind::Temporary)
    );
    Ok(())
}

/// Compares the last checkpoint of the restarted run with the undisturbed run, byte by byte.
fn compare(plan: &Plan, checkpoints: &CheckpointStore, undisturbed: &[Slab]) -> AnyResult<bool> {
    let reader = checkpoints.reader();
    let manifest =
        reader.find_manifest_by_step(plan.steps)?.ok_or("the last step was not saved")?;
    let mut equal = true;
    for (rank, slab) in undisturbed.iter().enumerate() {
        let mut saved = AlignedVec::zeroed(slab.shard_bytes())?;
        reader.read_shard_into(&manifest, rank as u32, &mut saved)?;
        let [u, v] = slab.arrays();
        let different = u.iter().chain(v).zip(saved.iter()).filter(|(a, b)| a != b).count();
        let checksum = manifest.shard(rank as u32)?.checksum.as_deref().unwrap_or("none");
        println!("   rank {rank}: {} bytes, {different} differ, {checksum}", saved.len());
        equal &= different == 0;
    }
    println!("   {}", if equal { "bitwise equal" } else { "NOT EQUAL" });
    Ok(equal)
}
