//! The variables of validation sampling.

use std::path::PathBuf;
use std::str::FromStr;

use super::forms::{Parsed, Refused, file_path, optional};
use super::{ConfigError, S3Prefix};

/// Which records are also looked at, and where what was found is kept.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ValidationConfig {
    /// The share of records that are sampled, 0 to 1; 0 for none.
    pub share: f64,
    /// Where sampled pairs are written; none for nowhere.
    pub capture: Option<CaptureUri>,
}

/// Where sampled pairs are written, an object or a file a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CaptureUri {
    /// `s3://bucket/prefix`
    S3(S3Prefix),
    /// `file:///folder`
    Folder(PathBuf),
}

impl ValidationConfig {
    /// Reads variables from a lookup.
    pub(super) fn from_vars(
        has_endpoint: bool,
        get: &impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let share = optional("VALIDATE_SHARE", get)?.map_or(0.0, |Share(share)| share);
        let capture = optional("CAPTURE_URI", get)?;
        let name = "CAPTURE_URI";
        match capture {
            Some(_) if !has_endpoint => Err(ConfigError::Needs { name, needs: "ENDPOINT_NAME" }),
            Some(_) if share == 0.0 => {
                Err(ConfigError::Needs { name, needs: "VALIDATE_SHARE above 0" })
            }
            capture => Ok(Self { share, capture }),
        }
    }
}

struct Share(f64);

impl Parsed for Share {
    const EXPECTED: &'static str = "a share, 0 to 1";
}

impl FromStr for Share {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
        share.map(Self).ok_or(Refused)
    }
}

impl Parsed for CaptureUri {
    const EXPECTED: &'static str = "s3://bucket/prefix or file:///folder";
}

impl FromStr for CaptureUri {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        if text.starts_with("s3://") {
            text.parse().map(Self::S3)
        } else {
            file_path(text).map(Self::Folder)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(vars: &[(&str, &str)], has_endpoint: bool) -> Result<ValidationConfig, String> {
        let get = |name: &str| {
            let found = vars.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        ValidationConfig::from_vars(has_endpoint, &get).map_err(|error| error.to_string())
    }

    #[test]
    fn a_share_and_a_place_are_read() {
        assert_eq!(read(&[], true), Ok(ValidationConfig::default()));
        let both = [("VALIDATE_SHARE", "0.05"), ("CAPTURE_URI", "s3://pairs/of/web/")];
        let place = S3Prefix { bucket: "pairs".into(), prefix: "of/web/".into() };
        let expected = ValidationConfig { share: 0.05, capture: Some(CaptureUri::S3(place)) };
        assert_eq!(read(&both, true), Ok(expected));
        let folder = [("VALIDATE_SHARE", "1"), ("CAPTURE_URI", "file:///tmp/pairs")];
        let capture = Some(CaptureUri::Folder("/tmp/pairs".into()));
        assert_eq!(read(&folder, true), Ok(ValidationConfig { share: 1.0, capture }));
    }

    #[test]
    fn what_can_not_be_is_named() {
        for share in ["1.1", "-0.1", "NaN", "5%", "inf"] {
            let said = read(&[("VALIDATE_SHARE", share)], true).expect_err(share);
            assert!(said.contains("VALIDATE_SHARE") && said.contains("0 to 1"), "{said}");
        }
        let said = read(&[("VALIDATE_SHARE", "1"), ("CAPTURE_URI", "pairs")], true);
        assert!(said.expect_err("no uri").contains("s3://bucket/prefix or file:///folder"));
        let said = read(&[("CAPTURE_URI", "file:///pairs")], true).expect_err("no share");
        assert_eq!(
            said,
            "environment variable CAPTURE_URI is set, which needs VALIDATE_SHARE above 0"
        );
        let said = read(&[("VALIDATE_SHARE", "1"), ("CAPTURE_URI", "file:///pairs")], false);
        assert!(said.expect_err("no endpoint").ends_with("needs ENDPOINT_NAME"));
    }
}
