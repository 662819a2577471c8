//! How large each part of an object is, where the medium limits the number of parts.

use crate::backend::PartLimits;
use crate::error::{Error, ErrorKind, Result};

/// Hands out the sizes of an object's parts, one after the other, in part buffers.
///
/// With a size hint all parts up to the hint are equal, and as small as nine tenths of the number of parts
/// allow: the last tenth is for an object that turns out larger. Without a hint, and beyond it, parts double after every tenth of those still to be had, until the memory
/// of the engine carries no larger one: an object that needs more fails and is told to give a hint.
#[derive(Debug)]
pub(super) struct PartPlan {
    part_bytes: u64,
    limits: PartLimits,
    size_hint_bytes: u64,
    units_max: u64,
    units: u64,
    /// The part at which they double next.
    double_at: u64,
    /// Parts between two doublings, once the hint is left behind.
    stride: Option<u64>,
}

impl PartPlan {
    /// `units_max`: the largest part the engine's memory carries, in part buffers of `part_bytes`.
    ///
    /// # Errors
    /// `LimitExceeded` if an object of the size hinted at cannot be carried.
    pub fn new(
        part_bytes: usize,
        limits: PartLimits,
        size_hint_bytes: Option<u64>,
        units_max: usize,
    ) -> Result<PartPlan> {
        let (part_bytes, hint) = (part_bytes as u64, size_hint_bytes.unwrap_or(0));
        let units_max = (units_max as u64).min(limits.bytes_max / part_bytes).max(1);
        let units =
            hint.div_ceil(planned_parts(limits.count_max).saturating_mul(part_bytes)).max(1);
        if units > units_max {
            let (count, most) = (limits.count_max, units_max * part_bytes);
            let what = format!(
                "an object of {hint} bytes in at most {count} parts needs parts of {} bytes, and the \
                 store's memory carries parts of {most} bytes",
                units * part_bytes
            );
            return Err(Error::new(ErrorKind::LimitExceeded, "open writer", what)
                .with_remedy("raise part_bytes or memory_bytes_max, or give a smaller size hint"));
        }
        Ok(PartPlan {
            part_bytes,
            limits,
            size_hint_bytes: hint,
            units_max,
            units,
            double_at: u64::MAX,
            stride: None,
        })
    }

    /// Bytes of the smallest part but the last, as things stand. It grows with the parts: else an object
    /// that is handed over in small pieces would use its parts up.
    pub fn bytes_min(&self) -> usize {
        self.limits.bytes_min.saturating_mul(self.units as usize)
    }

    /// Part buffers of part `index`, which starts at `offset`. Asked once a part, in order.
    ///
    /// # Errors
    /// `LimitExceeded` if the object may not have so many parts.
    pub fn units(&mut self, index: u64, offset: u64) -> Result<usize> {
        if index >= self.limits.count_max {
            let what = format!(
                "the object has its {index} parts of at most {} bytes, and goes on",
                self.units * self.part_bytes
            );
            return Err(Error::new(ErrorKind::LimitExceeded, "write part", what)
                .with_remedy("open the writer with a size hint, or raise part_bytes"));
        }
        if offset < self.size_hint_bytes {
            // Parts before this one may have been smaller than planned.
            let left = planned_parts(self.limits.count_max).saturating_sub(index).max(1);
            let bytes_left = self.size_hint_bytes - offset;
            let needed = bytes_left.div_ceil(left.saturating_mul(self.part_bytes));
            self.units = self.units.max(needed).min(self.units_max);
        }
        if self.stride.is_none() && offset >= self.size_hint_bytes {
            let stride = ((self.limits.count_max - index) / 10).max(1);
            self.stride = Some(stride);
            self.double_at = index.saturating_add(stride);
        }
        if let Some(stride) = self.stride
            && index >= self.double_at
        {
            self.units = (self.units * 2).min(self.units_max);
            self.double_at = index.saturating_add(stride);
        }
        Ok(self.units as usize)
    }
}

/// The parts an object of the size hinted at may use.
fn planned_parts(count_max: u64) -> u64 {
    count_max - count_max / 10
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    fn s3(count_max: u64) -> PartLimits {
        PartLimits { bytes_min: 5 << 20, bytes_max: 5 << 30, count_max, whole: true }
    }

    /// Parts and largest part of an object of this size.
    fn walk(plan: &mut PartPlan, size: u64) -> Result<(u64, u64)> {
        let (mut index, mut offset, mut largest) = (0, 0, 0);
        while offset < size {
            let bytes = plan.units(index, offset)? as u64 * plan.part_bytes;
            largest = largest.max(bytes);
            offset += bytes;
            index += 1;
        }
        Ok((index, largest))
    }

    #[test]
    fn media_without_limits_have_equal_parts() {
        let mut plan = PartPlan::new(1 << 20, PartLimits::NONE, None, 8).unwrap();
        for index in [0, 1, 1000, 1 << 40] {
            assert_eq!(plan.units(index, index << 20).unwrap(), 1);
        }
    }

    #[test]
    fn parts_grow_within_the_budget_and_then_fail_by_name() {
        let mut plan = PartPlan::new(8 << 20, s3(10_000), None, 9).unwrap();
        let (parts, largest) = walk(&mut plan, 400 << 30).unwrap();
        assert!(parts <= 10_000 && largest == 72 * MIB, "{parts} {largest}");
        let mut plan = PartPlan::new(8 << 20, s3(10_000), None, 9).unwrap();
        let error = walk(&mut plan, 48 << 40).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LimitExceeded);
        assert!(error.to_string().contains("size hint"), "{error}");
        let error = PartPlan::new(8 << 20, s3(10_000), Some(48 << 40), 9).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LimitExceeded);
    }

    proptest! {
        /// With a hint that is true, the object fits, in equal parts no larger than need be.
        #[test]
        fn a_true_hint_carries(size in 1u64..2_000_000, count_max in 10u64..500) {
            let mut plan = PartPlan::new(100, s3(count_max), Some(size), usize::MAX).unwrap();
            let (parts, largest) = walk(&mut plan, size).unwrap();
            prop_assert!(parts <= count_max);
            prop_assert!((largest - 100).saturating_mul(planned_parts(count_max)) < size, "{} parts of {}", parts, largest);
        }

        /// A hint that is too small costs larger parts later, never the object.
        #[test]
        fn a_wrong_hint_costs_no_data(hint in 1u64..100_000, size in 1u64..100_000) {
            let mut plan = PartPlan::new(100, s3(100), Some(hint), usize::MAX).unwrap();
            prop_assert!(walk(&mut plan, size).is_ok());
        }
    }
}
