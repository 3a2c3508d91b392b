//! Rules across keys. Every broken rule is reported; what Cortex accepts is at most a warning, unless it would be wrong
//! silently.

use crate::{Config, problems::Rules};

impl Config {
    pub(crate) fn validate(&self, _rules: &mut Rules<'_>) {}
}
