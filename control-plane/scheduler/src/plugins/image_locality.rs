//! Prefers nodes that have the pod's images, counted less when few nodes have them: a popular node
//! would else attract every pod of an image.

use crate::cluster::Cluster;
use crate::framework::{MAX_SCORE, Plugin, Rate};
use crate::pod_info::PodInfo;

pub(crate) struct ImageLocality;

const MEBIBYTE: i64 = 1024 * 1024;
/// Smaller images are pulled at once.
const LEAST: i64 = 23 * MEBIBYTE;
/// A container's images count up to this.
const MOST: i64 = 1000 * MEBIBYTE;

impl Plugin for ImageLocality {
    fn name(&self) -> &'static str {
        "ImageLocality"
    }

    fn rate<'a>(&self, pod: &'a PodInfo, cluster: &'a Cluster) -> Option<Rate<'a>> {
        let spec = pod.pod.spec.as_ref()?;
        let total = i64::try_from(cluster.nodes().len()).ok().filter(|total| *total > 0)?;
        let images: Vec<(&str, i64)> = spec
            .containers
            .iter()
            .filter_map(|container| container.image.as_deref())
            .map(|image| {
                let having =
                    cluster.nodes().iter().filter(|node| node.image_sizes.contains_key(image)).count();
                (image, i64::try_from(having).unwrap_or(total))
            })
            .filter(|(_, having)| *having > 0)
            .collect();
        if images.is_empty() {
            return None;
        }
        let most = MOST * i64::try_from(spec.containers.len()).unwrap_or(1);
        Some(Box::new(move |node| {
            let sum: i64 = images
                .iter()
                .map(|(image, having)| node.image_sizes.get(*image).map_or(0, |size| size * having / total))
                .sum();
            MAX_SCORE * (sum.clamp(LEAST, most) - LEAST) / (most - LEAST)
        }))
    }
}
