//! Dividing seats among levels: each gets the same fraction of what it wants, as far as its bounds let it.

/// One who gets a part.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    /// What it wants; not below `least`.
    pub target: f64,
    /// The least it must get.
    pub least: f64,
    /// The most it may get.
    pub most: f64,
}

/// Small enough not to matter, big enough to divide by.
const TINY: f64 = 0.001;

impl Claim {
    fn weight(&self) -> f64 {
        self.target.max(TINY)
    }

    fn at(&self, fraction: f64) -> f64 {
        (self.weight() * fraction).clamp(self.least, self.most)
    }
}

/// Divides `total`. Returns each part, which sum up to `total` where the bounds allow that (else to the
/// nearest sum they allow), and the fraction of its target that whoever meets no bound gets.
pub fn divide(total: f64, claims: &[Claim]) -> (Vec<f64>, f64) {
    let sum = |fraction: f64| claims.iter().map(|claim| claim.at(fraction)).sum::<f64>();
    // The sum grows with the fraction, in straight pieces that end where somebody meets a bound.
    let mut bends: Vec<f64> =
        claims.iter().flat_map(|c| [c.least / c.weight(), c.most / c.weight()]).collect();
    bends.sort_by(f64::total_cmp);
    let mut low = 0.0;
    let mut fraction = bends.last().copied().unwrap_or_default();
    for bend in bends {
        if sum(bend) >= total {
            let (from, to) = (sum(low), sum(bend));
            let part = if to > from { ((total - from) / (to - from)).clamp(0.0, 1.0) } else { 1.0 };
            fraction = low + (bend - low) * part;
            break;
        }
        low = bend;
    }
    (claims.iter().map(|claim| claim.at(fraction)).collect(), fraction)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn claim() -> impl Strategy<Value = Claim> {
        (0.0..50.0f64, 0.0..50.0f64, 0.0..300.0f64).prop_map(|(least, more, room)| Claim {
            least,
            target: least + more,
            most: least + room,
        })
    }

    proptest! {
        #[test]
        fn parts_sum_up_and_are_fair(claims in proptest::collection::vec(claim(), 1..8), total in 0.0..800.0f64) {
            let (parts, fraction) = divide(total, &claims);
            let (least, most): (f64, f64) =
                claims.iter().fold((0.0, 0.0), |(l, m), c| (l + c.least, m + c.most));
            let wanted = total.clamp(least, most);
            prop_assert!((parts.iter().sum::<f64>() - wanted).abs() < 1e-6, "{parts:?}");
            for (part, claim) in parts.iter().zip(&claims) {
                prop_assert!(*part >= claim.least - 1e-9 && *part <= claim.most + 1e-9);
                let fair = claim.target.max(TINY) * fraction;
                let bound = (*part - claim.least).abs() < 1e-9 || (*part - claim.most).abs() < 1e-9;
                prop_assert!(bound || (*part - fair).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn what_one_does_not_want_the_others_get() {
        let claims = [
            Claim { target: 0.0, least: 0.0, most: 100.0 },
            Claim { target: 80.0, least: 10.0, most: 60.0 },
            Claim { target: 40.0, least: 10.0, most: 100.0 },
        ];
        let (parts, _) = divide(100.0, &claims);
        assert!(
            parts[0] < 0.1 && (parts[1] - 60.0).abs() < 0.1 && (parts[2] - 40.0).abs() < 0.1,
            "{parts:?}"
        );
    }
}
