//! [`About`]: what a member says about itself.

use bytes::Bytes;
use smol_str::SmolStr;

/// What a member says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// Its name.
    pub name: SmolStr,
    /// Its zone; empty = none.
    pub zone: SmolStr,
    /// What program it runs.
    pub build: SmolStr,
}

impl About {
    /// As it is stored: each text behind its length. Later versions may append to it.
    pub(super) fn encode(&self) -> Bytes {
        let mut out = Vec::new();
        for text in [&self.name, &self.zone, &self.build] {
            let len = u16::try_from(text.len()).unwrap_or(u16::MAX);
            out.extend_from_slice(&len.to_le_bytes());
            out.extend_from_slice(&text.as_bytes()[..usize::from(len)]);
        }
        out.into()
    }

    /// Reads what is stored. `None` if it is something else.
    pub fn decode(mut bytes: &[u8]) -> Option<Self> {
        let mut text = || {
            let (len, rest) = bytes.split_first_chunk::<2>()?;
            let (text, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*len)))?;
            bytes = rest;
            std::str::from_utf8(text).ok().map(SmolStr::new)
        };
        Some(Self { name: text()?, zone: text()?, build: text()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_is_read_and_what_is_cut_is_not() {
        let about = About { name: "n".into(), zone: "".into(), build: "1.2".into() };
        let bytes = about.encode();
        assert_eq!(About::decode(&bytes), Some(about));
        for end in 0..bytes.len() {
            assert_eq!(About::decode(&bytes[..end]), None);
        }
    }
}
