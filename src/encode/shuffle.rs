//! The byte shuffle: all first bytes of the elements, then all second ones, and so on. What is left over
//! behind the last whole element stays as it is.

/// Writes the shuffled `source` to `target`, which has its length.
pub(super) fn shuffle(element_bytes: usize, source: &[u8], target: &mut [u8]) {
    match element_bytes {
        4 => shuffle_by::<4>(source, target),
        8 => shuffle_by::<8>(source, target),
        _ => unreachable!("filters are for elements of 4 and 8 bytes"),
    }
}

/// Undoes [`shuffle`].
pub(super) fn unshuffle(element_bytes: usize, source: &[u8], target: &mut [u8]) {
    match element_bytes {
        4 => unshuffle_by::<4>(source, target),
        8 => unshuffle_by::<8>(source, target),
        _ => unreachable!("filters are for elements of 4 and 8 bytes"),
    }
}

/// Elements turned at a time: their bytes stay in the first-level cache.
const ELEMENTS_AT_A_TIME: usize = 1024;

fn shuffle_by<const N: usize>(source: &[u8], target: &mut [u8]) {
    let (elements, rest) = source.as_chunks::<N>();
    let (planes, tail) = target.split_at_mut(elements.len() * N);
    tail.copy_from_slice(rest);
    for (index, few) in elements.chunks(ELEMENTS_AT_A_TIME).enumerate() {
        let from = index * ELEMENTS_AT_A_TIME;
        for byte in 0..N {
            let plane = &mut planes[byte * elements.len() + from..][..few.len()];
            for (to, element) in plane.iter_mut().zip(few) {
                *to = element[byte];
            }
        }
    }
}

fn unshuffle_by<const N: usize>(source: &[u8], target: &mut [u8]) {
    let (elements, tail) = target.as_chunks_mut::<N>();
    let count = elements.len();
    let (planes, rest) = source.split_at(count * N);
    tail.copy_from_slice(rest);
    for (index, few) in elements.chunks_mut(ELEMENTS_AT_A_TIME).enumerate() {
        let from = index * ELEMENTS_AT_A_TIME;
        for byte in 0..N {
            let plane = &planes[byte * count + from..][..few.len()];
            for (element, of) in few.iter_mut().zip(plane) {
                element[byte] = *of;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bytes_are_ordered_by_their_place_in_the_element() {
        let mut target = [0; 11];
        shuffle(4, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], &mut target);
        assert_eq!(target, [1, 5, 2, 6, 3, 7, 4, 8, 9, 10, 11]);
    }

    proptest! {
        #[test]
        fn what_is_shuffled_comes_back(
            data in proptest::collection::vec(any::<u8>(), 0..20_000),
            element_bytes in prop_oneof![Just(4usize), Just(8usize)],
        ) {
            let (mut turned, mut back) = (vec![0; data.len()], vec![0; data.len()]);
            shuffle(element_bytes, &data, &mut turned);
            unshuffle(element_bytes, &turned, &mut back);
            prop_assert_eq!(back, data);
        }
    }
}
