//! The command `syncline`: checkpoints and objects from the shell.
//!
//! A thin face over the library's public interface. `args` is the grammar, `session` what commands
//! share; `checkpoint`, `restore`, `inspect` and `house` are the commands on checkpoints, `object` those on single
//! objects, `bench` measures. `transfer` moves the bytes, `crew` several files at a time. `signals` and
//! `failure` decide how a command ends.

mod args;
mod bench;
mod checkpoint;
mod crew;
mod failure;
mod house;
mod inspect;
mod object;
mod output;
mod progress;
mod restore;
mod scratch;
mod session;
mod signals;
mod transfer;

use std::process::ExitCode;

use clap::Parser as _;

use args::{Cli, Command};
use failure::{Failure, status_of};
use output::{note, printable};
use session::Session;
use signals::Stop;

fn main() -> ExitCode {
    // Before anything can start a thread.
    let stop = match Stop::install() {
        Ok(stop) => stop,
        Err(failure) => return end(&failure, false),
    };
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(help_or_error) => {
            let help_or_error = harmless(help_or_error);
            // A closed pipe does not matter to somebody who asked for help.
            let _ = help_or_error.print();
            return ExitCode::from(u8::try_from(help_or_error.exit_code()).unwrap_or(u8::MAX));
        }
    };
    let compressing = matches!(&cli.command, Command::Save(save) if save.compress.is_some());
    let result = Session::new(&cli.common, compressing, stop.clone())
        .and_then(|session| run(&session, &cli.command));
    match (result, stop.signal()) {
        (Ok(()), None) => ExitCode::SUCCESS,
        (Ok(()), Some(signal)) => {
            note(&format!("{signal} came too late: the command is done"));
            ExitCode::from(status_of(signal))
        }
        (Err(failure), _) => end(&failure, is_about_checkpoints(&cli.command)),
    }
}

/// The same about arguments that do not drive the terminal: an error quotes them, and a shell may have made one
/// of the name of any file.
fn harmless(help_or_error: clap::Error) -> clap::Error {
    let args = std::env::args_os().map(|arg| printable(&arg.to_string_lossy()));
    Cli::try_parse_from(args).err().unwrap_or(help_or_error)
}

fn run(session: &Session, command: &Command) -> Result<(), Failure> {
    match command {
        Command::Save(args) => checkpoint::save(session, args),
        Command::Restore(args) => restore::restore(session, args),
        Command::List(args) => inspect::list(session, args),
        Command::Show(args) => inspect::show(session, args),
        Command::Verify(args) => inspect::verify(session, args),
        Command::Put(args) => object::put(session, args),
        Command::Get(args) => object::get(session, args),
        Command::Cat(args) => object::cat(session, args),
        Command::Ls(args) => object::ls(session, args),
        Command::Stat(args) => object::stat(session, args),
        Command::Rm(args) => object::rm(session, args),
        Command::Sum(args) => object::sum(session, args),
        Command::Prune(args) => house::prune(session, args),
        Command::Gc(args) => house::gc(session, args),
        Command::Bench(args) => bench::bench(session, args),
    }
}

/// Whether data that is not there or not whole means a damaged checkpoint. Not in a save: what it makes
/// is no checkpoint before it succeeds.
fn is_about_checkpoints(command: &Command) -> bool {
    matches!(
        command,
        Command::Restore(_)
            | Command::List(_)
            | Command::Show(_)
            | Command::Verify(_)
            | Command::Prune(_)
            | Command::Gc(_)
    )
}

fn end(failure: &Failure, of_checkpoint: bool) -> ExitCode {
    if !matches!(failure, Failure::ClosedPipe) {
        note(&failure.to_string());
    }
    ExitCode::from(failure.status(of_checkpoint))
}
