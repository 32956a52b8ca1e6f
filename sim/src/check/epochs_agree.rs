//! The nodes of a site agree about the epochs of its pipelines, no record is read by two of them, and no
//! epoch is missing (DESIGN of pipelines: a commit is one entry, refused if it does not follow the last one).

use super::{Check, Observation};
use crate::epochs::EpochLog;
use fulmar_types::Event;
use std::collections::BTreeMap;

/// All epochs of all pipelines; what these gave is compared with the reference by them.
#[derive(Default)]
pub struct EpochsAgree {
    logs: BTreeMap<(u16, String), EpochLog>,
    compared: u64,
}

impl Check for EpochsAgree {
    fn name(&self) -> &'static str {
        "epochs_agree"
    }

    fn observe(&mut self, seen: &Observation<'_>) -> Result<(), String> {
        let Event::EpochCommitted(epoch) = seen.event else { return Ok(()) };
        let log = self.logs.entry((seen.at.site, epoch.pipeline.clone())).or_default();
        let is_new =
            log.note(epoch, seen.time_ns).map_err(|text| format!("{}: {text}", seen.at))?;
        self.compared += u64::from(!is_new);
        Ok(())
    }

    fn epochs(&self, site: u16, pipeline: &str) -> Option<&EpochLog> {
        self.logs.get(&(site, pipeline.to_owned()))
    }

    fn compared(&self) -> u64 {
        self.compared
    }
}
