//! Owns removing the client's own interfaces and making them anew: link events for the product, which `fault` never
//! makes. Never undone by itself: whoever removes a link makes it again, or the lab goes.

use anyhow::Result;

use super::Lab;
use super::topology::Path;

impl Lab {
    /// Removes an uplink of the client; the router's end goes with it.
    pub fn remove_uplink(&self, path: Path) -> Result<()> {
        self.topology.client().ip(&format!("link del {}\n", path.uplink()))
    }

    /// Makes the uplink again, as it was: name, addresses, routes. Its index is another one.
    pub fn make_uplink(&self, path: Path) -> Result<()> {
        self.topology.rewire("client", path.uplink())?;
        self.topology.route("client")?;
        self.topology.route(match path {
            Path::A => "ra",
            Path::B => "rb",
        })
    }
}
