//! How an object is compressed, as users say it, as keys show it and as manifests record it.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// The level where none is named: zstd's own default.
const LEVEL_DEFAULT: i32 = 3;

/// Source: zstd 1.5, `ZSTD_maxCLevel`. Levels below 1 exist and are not offered: they save little time here,
/// since frames that do not shrink are recognised and stored.
const LEVELS: std::ops::RangeInclusive<i32> = 1..=22;

/// How a writer compresses.
///
/// ```
/// use syncline::{Compression, Filter};
/// let compression: Compression = "zstd:7".parse()?;
/// assert_eq!(compression.suffix(), ".zst");
/// assert_eq!(compression.with_filter(Filter::Shuffle4)?.suffix(), ".shuf4.zst");
/// # Ok::<(), syncline::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Compression {
    /// Bytes are stored as they come.
    #[default]
    None,
    /// Independent zstd frames and a seek table: any zstd tool opens the object, and ranges are read alone.
    Zstd(Zstd),
}

/// Settings of zstd, valid by construction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Zstd {
    level: i32,
    filter: Filter,
}

/// What is done to the bytes of a frame before they are compressed, and undone after they are decompressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Filter {
    /// Nothing.
    #[default]
    None,
    /// The first bytes of all elements of 4 bytes come first, then the second ones, and so on, as HDF5 and
    /// Blosc do. Arrays of floats often shrink better so; plain `zstd -d` yields them in that order.
    Shuffle4,
    /// The same for elements of 8 bytes.
    Shuffle8,
}

impl Compression {
    /// zstd of a level from 1 to 22; 3 is what zstd itself uses.
    ///
    /// # Errors
    /// `InvalidInput` for another level.
    pub fn zstd(level: i32) -> Result<Compression> {
        if LEVELS.contains(&level) {
            return Ok(Compression::Zstd(Zstd { level, filter: Filter::None }));
        }
        let (first, last) = (LEVELS.start(), LEVELS.end());
        let detail = format!("zstd has no level {level}");
        Err(Error::invalid("choose compression", detail)
            .with_remedy(format!("choose a level from {first} to {last}")))
    }

    /// With this filter.
    ///
    /// # Errors
    /// `InvalidInput` for a filter without compression.
    pub fn with_filter(self, filter: Filter) -> Result<Compression> {
        match self {
            Compression::Zstd(zstd) => Ok(Compression::Zstd(Zstd { filter, ..zstd })),
            Compression::None if filter == Filter::None => Ok(self),
            Compression::None => {
                let detail = format!("the filter {} without compression", filter.name());
                Err(Error::invalid("choose compression", detail).with_remedy("choose zstd"))
            }
        }
    }

    /// What the names of such objects end with: nothing, `.zst`, `.shuf4.zst` or `.shuf8.zst`.
    pub fn suffix(&self) -> &'static str {
        match self {
            Compression::None => "",
            Compression::Zstd(zstd) => zstd.filter.suffix(),
        }
    }

    /// The filter.
    pub fn filter(&self) -> Filter {
        match self {
            Compression::None => Filter::None,
            Compression::Zstd(zstd) => zstd.filter,
        }
    }
}

impl Zstd {
    /// The level, 1 to 22.
    pub fn level(&self) -> i32 {
        self.level
    }

    /// The filter.
    pub fn filter(&self) -> Filter {
        self.filter
    }
}

impl Filter {
    /// `shuf4` and `shuf8`, as manifests record it; `none`.
    pub fn name(self) -> &'static str {
        match self {
            Filter::None => "none",
            Filter::Shuffle4 => "shuf4",
            Filter::Shuffle8 => "shuf8",
        }
    }

    /// The filter for elements of so many bytes.
    ///
    /// # Errors
    /// `InvalidInput` for sizes other than 4 and 8.
    pub fn shuffle(element_bytes: usize) -> Result<Filter> {
        match element_bytes {
            4 => Ok(Filter::Shuffle4),
            8 => Ok(Filter::Shuffle8),
            _ => {
                let detail = format!("no filter for elements of {element_bytes} bytes");
                Err(Error::invalid("choose filter", detail).with_remedy("choose 4 or 8"))
            }
        }
    }

    /// What the names of zstd objects with this filter end with.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Filter::None => ".zst",
            Filter::Shuffle4 => ".shuf4.zst",
            Filter::Shuffle8 => ".shuf8.zst",
        }
    }

    /// Bytes of an element that is shuffled; `None` where nothing is.
    pub(crate) fn element_bytes(self) -> Option<usize> {
        match self {
            Filter::None => None,
            Filter::Shuffle4 => Some(4),
            Filter::Shuffle8 => Some(8),
        }
    }
}

impl FromStr for Filter {
    type Err = Error;

    /// Reads `none`, `shuf4` and `shuf8`.
    fn from_str(text: &str) -> Result<Filter> {
        let known = [Filter::None, Filter::Shuffle4, Filter::Shuffle8];
        known.into_iter().find(|filter| filter.name() == text).ok_or_else(|| {
            Error::invalid("parse filter", format!("{text:?} is not a filter"))
                .with_remedy("use none, shuf4 or shuf8")
        })
    }
}

/// `none`, `zstd:3` or `zstd:3 after shuf4`.
impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Compression::None => f.write_str("none"),
            Compression::Zstd(Zstd { level, filter: Filter::None }) => write!(f, "zstd:{level}"),
            Compression::Zstd(Zstd { level, filter }) => {
                write!(f, "zstd:{level} after {}", filter.name())
            }
        }
    }
}

impl FromStr for Compression {
    type Err = Error;

    /// Reads `none`, `zstd` and `zstd:LEVEL`.
    fn from_str(text: &str) -> Result<Compression> {
        let refuse = || {
            Error::invalid("parse compression", format!("{text:?} is not a compression"))
                .with_remedy("use none, zstd or zstd:LEVEL, for example zstd:3")
        };
        match text.split_once(':') {
            None if text == "none" => Ok(Compression::None),
            None if text == "zstd" => Compression::zstd(LEVEL_DEFAULT),
            Some(("zstd", level)) => Compression::zstd(level.parse().map_err(|_| refuse())?),
            _ => Err(refuse()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_and_others_refused() {
        assert_eq!("none".parse::<Compression>().unwrap(), Compression::None);
        assert_eq!("zstd".parse::<Compression>().unwrap(), Compression::zstd(3).unwrap());
        assert_eq!("zstd:19".parse::<Compression>().unwrap(), Compression::zstd(19).unwrap());
        for wrong in ["", "zstd:", "zstd:0", "zstd:23", "zstd:x", "gzip", "zstd:3:4", "ZSTD"] {
            assert!(wrong.parse::<Compression>().is_err(), "{wrong:?}");
        }
        assert!(Compression::None.with_filter(Filter::Shuffle4).is_err());
        assert!(Filter::shuffle(2).is_err());
    }

    #[test]
    fn names_are_read_back() {
        for filter in [Filter::None, Filter::Shuffle4, Filter::Shuffle8] {
            assert_eq!(filter.name().parse::<Filter>().unwrap(), filter);
            let compression = Compression::zstd(5).unwrap().with_filter(filter).unwrap();
            assert!(compression.suffix().ends_with(".zst"));
            assert_eq!(compression.suffix() == ".zst", filter == Filter::None);
        }
    }
}
