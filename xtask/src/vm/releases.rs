//! Which kernel of which Debian release: names of packages to choices. Pure.

use std::str::FromStr;

/// A line of kernels, as `--vm` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Series {
    /// Debian 11's: the oldest that Skep runs on.
    V5_10,
    /// Debian 12's.
    V6_1,
    /// Debian 13's.
    V6_12,
    /// The newest that Debian 13's backports serve.
    Newest,
}

impl Series {
    /// The whole matrix.
    pub(crate) const ALL: &'static [Self] = &[Self::V5_10, Self::V6_1, Self::V6_12, Self::Newest];

    /// As it is written.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V5_10 => "5.10",
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
            Self::Newest => "newest",
        }
    }

    /// The module of its tests in `tests/vm`.
    pub(crate) fn module(self) -> &'static str {
        match self {
            Self::V5_10 => "linux_5_10",
            Self::V6_1 => "linux_6_1",
            Self::V6_12 => "linux_6_12",
            Self::Newest => "linux_newest",
        }
    }

    /// The suites that serve it: archive folder and suite.
    pub(crate) fn suites(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::V5_10 => &[("debian", "bullseye"), ("debian-security", "bullseye-security")],
            Self::V6_1 => &[("debian", "bookworm"), ("debian-security", "bookworm-security")],
            Self::V6_12 => &[("debian", "trixie"), ("debian-security", "trixie-security")],
            Self::Newest => &[("debian", "trixie-backports")],
        }
    }

    /// Whether a kernel of this release belongs to the series.
    fn has(self, release: &str) -> bool {
        match self {
            Self::Newest => true,
            _ => {
                let mut numbers = self.name().split('.').map(str::parse::<u64>);
                let key = order(release);
                key.iter().take(2).all(|number| numbers.next() == Some(Ok(*number)))
            }
        }
    }
}

/// Reads `--vm`: one series, or `all`.
#[derive(Clone, Debug)]
pub(crate) struct Choice(pub(crate) &'static [Series]);

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self(Series::ALL));
        }
        let found = Series::ALL.iter().position(|series| series.name() == text);
        match found {
            Some(at) => Ok(Self(&Series::ALL[at..=at])),
            None => Err("there are: 5.10, 6.1, 6.12, newest, all".to_owned()),
        }
    }
}

/// The newest cloud kernel of a series among names of packages: the package and the kernel's release.
pub(crate) fn choose<'a>(
    series: Series,
    names: impl IntoIterator<Item = &'a str>,
) -> Option<(String, String)> {
    let release = |name: &'a str| {
        let release = name.strip_prefix("linux-image-")?;
        let version = release.strip_suffix("-cloud-amd64")?;
        version.starts_with(|c: char| c.is_ascii_digit()).then_some((name, release, version))
    };
    let candidates = names.into_iter().filter_map(release).filter(|(_, _, version)| {
        // "linux-image-6.1-cloud-amd64" is a meta-package.
        series.has(version) && order(version).len() > 2
    });
    let (name, release, _) = candidates.max_by_key(|(_, _, version)| order(version))?;
    Some((name.to_owned(), release.to_owned()))
}

/// Numbers in the order in which they count.
fn order(version: &str) -> Vec<u64> {
    version.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVED: [&str; 12] = [
        "linux-image-5.10.0-9-cloud-amd64",
        "linux-image-5.10.0-46-cloud-amd64",
        "linux-image-5.10.0-46-cloud-amd64-dbg",
        "linux-image-5.10.0-47-amd64",
        "linux-image-6.1-cloud-amd64",
        "linux-image-6.1.0-0.deb11.52-cloud-amd64",
        "linux-image-6.1.0-47-cloud-amd64",
        "linux-image-6.1.0-50-cloud-amd64-unsigned",
        "linux-image-6.12.107+deb13-cloud-amd64",
        "linux-image-6.12.17+deb13-cloud-amd64",
        "linux-image-7.3.4+deb13-cloud-amd64",
        "linux-image-cloud-amd64",
    ];

    #[test]
    fn the_newest_of_each_series_is_chosen() {
        for (series, release) in [
            (Series::V5_10, "5.10.0-46-cloud-amd64"),
            (Series::V6_1, "6.1.0-47-cloud-amd64"),
            (Series::V6_12, "6.12.107+deb13-cloud-amd64"),
            (Series::Newest, "7.3.4+deb13-cloud-amd64"),
        ] {
            let wanted = (format!("linux-image-{release}"), release.to_owned());
            assert_eq!(choose(series, SERVED), Some(wanted));
        }
        assert_eq!(choose(Series::V5_10, ["linux-image-6.1.0-47-cloud-amd64"]), None);
    }

    #[test]
    fn all_is_the_whole_matrix() {
        assert_eq!("all".parse::<Choice>().map(|choice| choice.0), Ok(Series::ALL));
        assert_eq!("6.1".parse::<Choice>().map(|choice| choice.0), Ok(&[Series::V6_1][..]));
        assert!("4.19".parse::<Choice>().is_err());
    }
}
