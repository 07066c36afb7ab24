//! Owns what happens to the client's own interfaces: link events for the product, which `fault` never makes. A link that
//! was removed is never made again by itself: whoever removes one makes it again, or the lab goes.

use anyhow::{Result, ensure};

use super::Lab;
use super::fault::Fault;
use super::topology::Path;

impl Lab {
    /// An uplink of the client goes down, as when a cable is pulled: the kernel says so.
    pub fn uplink_down(&self, path: Path) -> Result<Fault> {
        let client = self.topology.client();
        client.ip(&format!("link set {} down\n", path.uplink()))?;
        let (topology, back) = (self.topology.clone(), client.clone());
        let fault = Fault::undone_by(move || {
            back.ip(&format!("link set {} up\n", path.uplink()))?;
            topology.route("client")
        });
        let said = client.run(&["ip", "-o", "link", "show", "dev", path.uplink(), "up"], None)?;
        ensure!(said.trim().is_empty(), "{} is still up: {said}", path.uplink());
        self.prove_silent(path)?;
        Ok(fault)
    }

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
