//! What a client counts.
//!
//! Owns the translation of what engine and worker counted. Must never count anything itself.

use super::Client;
use super::api::path_state;
use crate::config::Role;
use crate::observe::metrics::Exposition;
use crate::observe::table::Metric;
use jvpn_common::session::State;

/// What `paths` calls them.
const PATHS: [&str; 5] = ["active", "standby", "unproven", "suspect", "dead"];

impl Client {
    pub(super) fn metrics(&self) -> Exposition {
        let mut to = Exposition::new(Role::Client);
        let view = self.engine.view();
        to.status(&self.status());
        for state in State::ALL {
            let here = view.session.is_some() && view.state == state.number();
            to.number(Metric::Sessions, &[state.name()], here.into());
        }
        to.worker(&self.counters);
        for state in PATHS {
            to.number(Metric::Paths, &[state], view.paths.iter().filter(|path| path_state(path) == state).count());
        }
        to
    }
}
