//! Owns removing the ends' own interfaces and making them anew: link events for the product, which `fault` never makes.
//! Never undone by itself: whoever removes a link makes it again, or the lab goes.

use anyhow::Result;

use super::topology::{GATEWAY_INTERFACE, Path};
use super::{Lab, pass};

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

    /// Removes the gateway's uplink, and with it whatever program was on it.
    pub fn remove_gateway_link(&self) -> Result<()> {
        self.topology.gateway().ip(&format!("link del {GATEWAY_INTERFACE}\n"))
    }

    /// Makes it again, as it was.
    pub fn make_gateway_link(&self) -> Result<()> {
        self.topology.rewire("gw", GATEWAY_INTERFACE)?;
        self.topology.route("gw")?;
        pass::attach(&self.topology.space("core"), "gw", &pass::load()?)
    }
}
