//! What a plug-in is: for a pod and the state of the cluster it makes a check and a score for nodes.
//!
//! Making them is where a plug-in does the work that is the same for every node; `None` says that it has
//! nothing to say about this pod, which then costs nothing per node.

use std::borrow::Cow;

use crate::cluster::Cluster;
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;

/// The best score after normalising.
pub(crate) const MAX_SCORE: i64 = 100;

/// Why a node does not fit, in the words that users know.
pub(crate) type Reason = Cow<'static, str>;

/// Tells whether a node fits: no reason is yes.
pub(crate) type Check<'a> = Box<dyn Fn(&NodeInfo) -> Vec<Reason> + Send + 'a>;

/// Scores a node that fits.
pub(crate) type Rate<'a> = Box<dyn Fn(&NodeInfo) -> i64 + Send + 'a>;

/// How raw scores become 0..=100 over the nodes that fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Normalize {
    /// They are already.
    Not,
    /// The highest becomes 100, nothing stays nothing.
    Highest,
    /// The highest becomes 0: raw scores count what is bad.
    Inverse,
    /// The lowest becomes 0 and the highest 100.
    Spread,
}

/// A plug-in.
pub(crate) trait Plugin: Sync {
    /// Its name, as users know it.
    fn name(&self) -> &'static str;

    /// A check of nodes for this pod.
    fn check<'a>(&self, _pod: &'a PodInfo, _cluster: &'a Cluster) -> Option<Check<'a>> {
        None
    }

    /// A score of nodes for this pod.
    fn rate<'a>(&self, _pod: &'a PodInfo, _cluster: &'a Cluster) -> Option<Rate<'a>> {
        None
    }

    /// How its scores are normalised.
    fn normalize(&self) -> Normalize {
        Normalize::Not
    }

    /// How much its score counts.
    fn weight(&self) -> i64 {
        1
    }
}

/// Brings raw scores to 0..=100.
pub(crate) fn normalize(scores: &mut [i64], how: Normalize) {
    let (Some(&highest), Some(&lowest)) = (scores.iter().max(), scores.iter().min()) else { return };
    for score in scores.iter_mut() {
        *score = match how {
            Normalize::Not => *score,
            Normalize::Highest if highest > 0 => *score * MAX_SCORE / highest,
            Normalize::Highest => 0,
            Normalize::Inverse if highest > 0 => MAX_SCORE - *score * MAX_SCORE / highest,
            Normalize::Inverse => MAX_SCORE,
            Normalize::Spread if highest > lowest => (*score - lowest) * MAX_SCORE / (highest - lowest),
            Normalize::Spread => 0,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_brought_to_one_scale() {
        let cases: [(Normalize, [i64; 3], [i64; 3]); 5] = [
            (Normalize::Not, [1, 2, 3], [1, 2, 3]),
            (Normalize::Highest, [0, 5, 10], [0, 50, 100]),
            (Normalize::Inverse, [0, 5, 10], [100, 50, 0]),
            (Normalize::Spread, [-10, 0, 10], [0, 50, 100]),
            (Normalize::Inverse, [0, 0, 0], [100, 100, 100]),
        ];
        for (how, mut scores, want) in cases {
            normalize(&mut scores, how);
            assert_eq!(scores, want, "{how:?}");
        }
    }
}
