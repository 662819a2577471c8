//! What objects are kept on, and how far that is trusted.

/// What an object's bytes are kept on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Medium {
    /// The type of the filesystem as `mount` names it (`ext4`, `nfs`), its magic number in hexadecimal where
    /// that is not known, `memory`, or the server's protocol: `s3`, `az`.
    pub name: String,
    /// What a commit on it withstands.
    pub durability: Durability,
}

/// What an object withstands once `finalize` has returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Durability {
    /// A power cut: of this machine on local filesystems, and on servers whatever their answer to the
    /// commit promises.
    Promised,
    /// The end of the process on memory filesystems, and not even that on `mem://`; no power cut.
    Memory,
    /// The end of the process. What a power cut, a lost server or a reader on another machine finds is up to
    /// the filesystem: one over a network or in user space, or one that nothing is known of here.
    NotPromised,
}

impl Medium {
    pub(crate) fn new(name: impl Into<String>, durability: Durability) -> Medium {
        Medium { name: name.into(), durability }
    }

    /// What to tell a user before anything is entrusted to it; `None` where all is promised.
    pub fn caution(&self) -> Option<String> {
        let Medium { name, .. } = self;
        match self.durability {
            Durability::Promised => None,
            Durability::Memory => {
                Some(format!("{name} is memory: nothing in it survives a power cut"))
            }
            Durability::NotPromised => Some(format!(
                "on {name} it is not promised that a save survives a power cut, or is seen whole from another \
                 machine: verify it there, or save to a local disk or an object store"
            )),
        }
    }
}
