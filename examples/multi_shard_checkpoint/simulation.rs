//! The Gray-Scott reaction-diffusion system on a periodic 3-D grid, cut into slabs along z.
//!
//! Each rank owns a slab and swaps its outer planes with its neighbours before every step, as an MPI
//! code would. The arithmetic of a cell does not depend on the decomposition or on timing, so two runs
//! agree bit for bit.

use std::sync::mpsc::{Receiver, Sender, channel};

use syncline::{AlignedVec, Result};

const DIFFUSION_U: f64 = 0.16;
const DIFFUSION_V: f64 = 0.08;
const FEED: f64 = 0.037;
const KILL: f64 = 0.060;

/// A rank's channels to its neighbours on the ring.
pub struct Links {
    below: (Sender<Vec<f64>>, Receiver<Vec<f64>>),
    above: (Sender<Vec<f64>>, Receiver<Vec<f64>>),
}

/// Connects `ranks` ranks to a ring.
pub fn ring(ranks: usize) -> Vec<Links> {
    let (up_ends, mut up_starts): (Vec<_>, Vec<_>) = (0..ranks).map(|_| channel()).unzip();
    let (down_ends, mut down_starts): (Vec<_>, Vec<_>) = (0..ranks).map(|_| channel()).unzip();
    // What rank r sends up is received below by rank r + 1, and the other way round.
    up_starts.rotate_right(1);
    down_starts.rotate_left(1);
    let below = down_ends.into_iter().zip(up_starts);
    let above = up_ends.into_iter().zip(down_starts);
    below.zip(above).map(|(below, above)| Links { below, above }).collect()
}

/// One concentration on a slab, with one plane of the neighbour's on either side.
struct Field {
    /// Page-aligned, so that `direct://` writes it without a copy.
    memory: AlignedVec,
    plane_cells: usize,
}

impl Field {
    fn zeroed(planes: usize, plane_cells: usize) -> Result<Field> {
        let bytes = (planes + 2) * plane_cells * size_of::<f64>();
        Ok(Field { memory: AlignedVec::zeroed(bytes)?, plane_cells })
    }

    fn cells(&self) -> &[f64] {
        bytemuck::cast_slice(&self.memory)
    }

    fn cells_mut(&mut self) -> &mut [f64] {
        bytemuck::cast_slice_mut(&mut self.memory)
    }

    /// The bytes of the slab's own planes.
    fn own(&self) -> std::ops::Range<usize> {
        let plane_bytes = self.plane_cells * size_of::<f64>();
        plane_bytes..self.memory.len() - plane_bytes
    }

    fn plane(&self, z: usize) -> Vec<f64> {
        self.cells()[z * self.plane_cells..][..self.plane_cells].to_vec()
    }

    fn set_plane(&mut self, z: usize, plane: &[f64]) {
        let start = z * self.plane_cells;
        self.cells_mut()[start..start + plane.len()].copy_from_slice(plane);
    }
}

/// A rank's part of the state.
pub struct Slab {
    size: usize,
    planes: usize,
    now: [Field; 2],
    next: [Field; 2],
}

impl Slab {
    /// The start: u is 1 and v is 0, but for a cube in the middle of the grid and a little unevenness.
    pub fn initial(size: usize, rank: usize, ranks: usize) -> Result<Slab> {
        let (first, planes) = share(size, rank, ranks);
        let field = || Field::zeroed(planes, size * size);
        let mut slab = Slab { size, planes, now: [field()?, field()?], next: [field()?, field()?] };
        let near_middle = |at: usize| (size * 3 / 8..size * 5 / 8).contains(&at);
        for z in 0..planes {
            for y in 0..size {
                for x in 0..size {
                    let cube = near_middle(first + z) && near_middle(y) && near_middle(x);
                    let uneven = ((x * 31 + y * 17 + (first + z) * 7) % 101) as f64 * 1e-4;
                    let at = (z + 1) * size * size + y * size + x;
                    slab.now[0].cells_mut()[at] = if cube { 0.5 } else { 1.0 } - uneven;
                    slab.now[1].cells_mut()[at] = if cube { 0.25 } else { 0.0 } + uneven;
                }
            }
        }
        Ok(slab)
    }

    /// Bytes of a shard: both concentrations of the slab's own cells.
    pub fn shard_bytes(&self) -> usize {
        2 * self.now[0].own().len()
    }

    /// The least and the greatest concentration of v: a look at whether the simulation does something.
    pub fn range_of_v(&self) -> (f64, f64) {
        let plane = self.size * self.size;
        let own = &self.now[1].cells()[plane..][..self.planes * plane];
        own.iter().fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(*v), high.max(*v)))
    }

    /// The two arrays of the state, as bytes.
    pub fn arrays(&self) -> [&[u8]; 2] {
        self.now.each_ref().map(|field| &field.memory[field.own()])
    }

    /// The same, to be filled from a checkpoint.
    pub fn arrays_mut(&mut self) -> [&mut [u8]; 2] {
        self.now.each_mut().map(|field| {
            let own = field.own();
            &mut field.memory[own]
        })
    }

    /// One step of the whole system: swaps planes with the neighbours, then computes.
    pub fn step(&mut self, links: &Links) {
        for field in &mut self.now {
            // A neighbour that is gone has ended the run; there is nobody to tell.
            let _ = links.below.0.send(field.plane(1));
            let _ = links.above.0.send(field.plane(self.planes));
            if let (Ok(below), Ok(above)) = (links.below.1.recv(), links.above.1.recv()) {
                field.set_plane(0, &below);
                field.set_plane(self.planes + 1, &above);
            }
        }
        self.compute();
        std::mem::swap(&mut self.now, &mut self.next);
    }

    fn compute(&mut self) {
        let (size, plane) = (self.size, self.size * self.size);
        let [u, v] = self.now.each_ref().map(Field::cells);
        let [next_u, next_v] = self.next.each_mut().map(Field::cells_mut);
        for z in 1..=self.planes {
            for y in 0..size {
                let (north, south) = ((y + size - 1) % size, (y + 1) % size);
                let row = z * plane + y * size;
                for x in 0..size {
                    let at = row + x;
                    let west = row + (x + size - 1) % size;
                    let east = row + (x + 1) % size;
                    let (north, south) =
                        (z * plane + north * size + x, z * plane + south * size + x);
                    let laplacian = |field: &[f64]| {
                        field[west]
                            + field[east]
                            + field[north]
                            + field[south]
                            + field[at - plane]
                            + field[at + plane]
                            - 6.0 * field[at]
                    };
                    let reaction = u[at] * v[at] * v[at];
                    next_u[at] =
                        u[at] + DIFFUSION_U * laplacian(u) - reaction + FEED * (1.0 - u[at]);
                    next_v[at] =
                        v[at] + DIFFUSION_V * laplacian(v) + reaction - (FEED + KILL) * v[at];
                }
            }
        }
    }
}

/// The first plane of a rank, and how many it has.
fn share(size: usize, rank: usize, ranks: usize) -> (usize, usize) {
    let first = size * rank / ranks;
    (first, size * (rank + 1) / ranks - first)
}
