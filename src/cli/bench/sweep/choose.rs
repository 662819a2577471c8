//! Which of the measured settings to use. Pure: numbers in, an index out.

/// The share of the best rate from which on a setting counts as good as the best: medians of a few runs
/// differ by as much without a reason.
pub const NEAR_BEST: f64 = 0.95;

/// What a setting costs. The order is what counts first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cost {
    /// I/O threads.
    pub threads: usize,
    /// Memory of the part buffers.
    pub memory_bytes: u64,
}

/// The cheapest of the settings that are near the best in every list of rates; of two that cost the same
/// the one that is nearer. Each list has one rate per cost. `None` where there is no such setting; with
/// one list of finite rates there always is.
pub fn cheapest(costs: &[Cost], lists: &[&[f64]]) -> Option<usize> {
    let bests: Vec<f64> = lists.iter().map(|rates| best_of(rates)).collect();
    let share = |index: usize| {
        let shares = lists.iter().zip(&bests).map(|(rates, best)| share_of(rates[index], *best));
        shares.fold(f64::INFINITY, f64::min)
    };
    (0..costs.len())
        .filter(|index| share(*index) >= NEAR_BEST)
        .min_by(|a, b| costs[*a].cmp(&costs[*b]).then_with(|| share(*b).total_cmp(&share(*a))))
}

/// The highest of these rates.
pub fn best_of(rates: &[f64]) -> f64 {
    rates.iter().copied().fold(0.0, f64::max)
}

/// A rate as a share of the best.
pub fn share_of(rate: f64, best: f64) -> f64 {
    if best > 0.0 { rate / best } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Costs with two lists of rates. Few values, so that many settings cost the same or are as fast.
    fn settings() -> impl Strategy<Value = Vec<(Cost, f64, f64)>> {
        let cost =
            (1usize..5, 1u64..5).prop_map(|(threads, memory_bytes)| Cost { threads, memory_bytes });
        let rate = || prop_oneof![0.0..1e4, (80u32..101).prop_map(f64::from)];
        prop::collection::vec((cost, rate(), rate()), 1..20)
    }

    fn costs(settings: &[(Cost, f64, f64)]) -> Vec<Cost> {
        settings.iter().map(|(cost, ..)| *cost).collect()
    }

    fn rates(settings: &[(Cost, f64, f64)]) -> [Vec<f64>; 2] {
        let list = |pick: fn(&(Cost, f64, f64)) -> f64| settings.iter().map(pick).collect();
        [list(|(_, rate, _)| *rate), list(|(_, _, rate)| *rate)]
    }

    proptest! {
        #[test]
        fn the_chosen_one_is_near_the_best_and_nothing_cheaper_is(settings in settings()) {
            let (costs, [rates, _]) = (costs(&settings), rates(&settings));
            let chosen = cheapest(&costs, &[&rates]).unwrap();
            let near = |rate: f64| rate >= NEAR_BEST * best_of(&rates) * (1.0 - 1e-12);
            prop_assert!(near(rates[chosen]));
            for (cost, rate) in costs.iter().zip(&rates) {
                prop_assert!(!(*cost < costs[chosen] && *rate > NEAR_BEST * best_of(&rates) * (1.0 + 1e-12)));
                prop_assert!(!(*cost == costs[chosen] && *rate > rates[chosen]));
            }
        }

        #[test]
        fn for_two_purposes_it_is_near_the_best_of_both_or_there_is_none(settings in settings()) {
            let (costs, [first, second]) = (costs(&settings), rates(&settings));
            let near = |index: usize| {
                [&first, &second].iter().all(|rates| share_of(rates[index], best_of(rates)) >= NEAR_BEST)
            };
            match cheapest(&costs, &[&first, &second]) {
                Some(chosen) => {
                    prop_assert!(near(chosen));
                    prop_assert!((0..costs.len()).all(|other| !near(other) || costs[chosen] <= costs[other]));
                }
                None => prop_assert!(!(0..costs.len()).any(near)),
            }
        }

        #[test]
        fn neither_the_unit_nor_the_order_matters(settings in settings(), turn in 0usize..20) {
            let choose = |settings: &[(Cost, f64, f64)], unit: f64| {
                let [first, _] = rates(settings);
                let first: Vec<f64> = first.iter().map(|rate| rate * unit).collect();
                cheapest(&costs(settings), &[&first]).map(|index| (costs(settings)[index], first[index] / unit))
            };
            let mut turned = settings.clone();
            turned.rotate_left(turn % settings.len());
            // A power of two changes no digit.
            prop_assert_eq!(choose(&settings, 1.0), choose(&settings, 1024.0));
            prop_assert_eq!(choose(&settings, 1.0), choose(&turned, 1.0));
        }
    }
}
