//! `trace`: why was this dropped? Captured frames through the same `steer` as the kernel's.
//!
//! Owns the lines and the summary. Must never say more about a tag than the keys at hand allow.

use super::error::{CliError, Kind};
use super::{Context, maps, output, plane};
use crate::api::model::{Body, Envelope};
use crate::dataplane::link;
use crate::inspect::capture::{Capture, CaptureError, Captured};
use crate::inspect::dump::{self, DumpError};
use crate::inspect::follow::{Log, Told};
use crate::inspect::replay::{Judged, Replay};
use crate::inspect::{Picture, view};
use jvpn_common::abi::{HOP_WORDS, Hop, ROLE_RELAY};
use jvpn_common::ids::SessionId;
use jvpn_common::steer::Source;
use jvpn_common::verdict::{Class, Verdict};
use jvpn_common::wire::header;
use schemars::JsonSchema;
use serde::Serialize;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// Say what the kernel program does with captured frames, and why
///
/// Runs each Ethernet frame of a pcap or pcapng file through the function the kernel program runs, against a copy of the
/// maps: the pinned ones as they are now (root), or a file that `maps --dump` wrote. The first frame meets the maps as
/// they were read, and time goes on as in the capture. Nothing is sent and no map is changed.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Capture in front of the program: on the other end of the link, or with xdpdump. tcpdump on the gateway \
                  sees only what the program let through. Take a dump before the capture: a probe that the maps have \
                  seen is a replay."
)]
pub(super) struct Args {
    /// The capture, pcap or pcapng, link type Ethernet
    #[arg(required_unless_present = "live")]
    file: Option<PathBuf>,
    /// A file that `maps --dump` wrote, instead of the pinned maps. Without --with-keys it holds no keys, and tags are not
    /// judged
    #[arg(long, value_name = "DUMP")]
    maps: Option<PathBuf>,
    /// Show only frames that are dropped
    #[arg(long)]
    drops: bool,
    /// On a relay: number of the interface the frames came in by (`ip link`). A frame with a VLAN tag is rewritten only
    /// when it leaves by that one
    #[arg(long, value_name = "IFINDEX", default_value_t = 0, hide_default_value = true)]
    ingress: u32,
    /// Instead of a capture, show what a debug build of the program says of each packet on an interface, as it happens
    /// (`cargo xtask build --log`, then load)
    #[arg(long, value_name = "IFACE", conflicts_with_all = ["file", "maps"])]
    live: Option<String>,
    /// With --live: only the first N, then end
    #[arg(long, value_name = "N", requires = "live")]
    first: Option<usize>,
}

/// Name of a datagram's type.
const fn kind_name(kind: header::Kind) -> &'static str {
    match kind {
        header::Kind::Initiation => "initiation",
        header::Kind::Response => "response",
        header::Kind::CookieReply => "cookie_reply",
        header::Kind::Data => "data",
        header::Kind::Control => "control",
        header::Kind::Probe => "probe",
        header::Kind::Echo => "echo",
        header::Kind::Notice => "notice",
    }
}

/// One frame.
#[derive(Clone, Debug, Serialize, JsonSchema)]
struct FrameView {
    /// Place in the file, from 1.
    frame: u64,
    /// When, RFC 3339; null where the file does not say.
    time: Option<String>,
    /// Address and port it came from; null for what is not for the gateway's port.
    source: Option<String>,
    /// Type of the datagram: initiation, response, cookie_reply, data, control, probe, echo or notice.
    kind: Option<&'static str>,
    /// Slot its locator leads to.
    slot: Option<u32>,
    /// Session in that slot.
    session_id: Option<String>,
    /// Name of the verdict.
    verdict: &'static str,
    /// pass, user, answer, forward or drop.
    class: &'static str,
    /// Whether the tag could not be checked for want of keys: the verdict is then what it is with a right tag, and
    /// FORGED_TAG otherwise.
    tag_unknown: bool,
    /// Bytes that the capture cut off; zeros were judged in their place.
    cut: usize,
    /// What the verdict means.
    meaning: &'static str,
}

/// What a debug build of the program said of one packet.
#[derive(Clone, Debug, Serialize, JsonSchema)]
struct LiveView {
    /// Name of the verdict.
    verdict: &'static str,
    /// pass, user, answer, forward or drop.
    class: &'static str,
    /// Slot its locator leads to.
    slot: Option<u32>,
    /// Its locator in hex.
    locator: String,
    /// Its counter.
    counter: u64,
    /// What the verdict means.
    meaning: &'static str,
}

/// Frames of one verdict.
#[derive(Clone, Debug, Serialize, JsonSchema)]
struct Sum {
    /// Name of the verdict.
    verdict: &'static str,
    /// pass, user, answer, forward or drop.
    class: &'static str,
    /// How many.
    frames: u64,
    /// What it means.
    meaning: &'static str,
    /// What to do about it.
    advice: &'static str,
}

/// One line of the stream: a frame, or at the end the summary.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(untagged)]
enum Line {
    /// A frame.
    Frame(FrameView),
    /// What a debug build of the program said of a packet.
    Live {
        /// It.
        live: LiveView,
    },
    /// The last line.
    Summary {
        /// Frames of each verdict.
        summary: Vec<Sum>,
        /// Frames whose tag could not be checked.
        tags_unknown: u64,
        /// What limits what was said.
        notes: Vec<String>,
    },
}

impl Body for Line {
    const SCHEMA: &'static str = "jvpn.trace/1";
}

/// The form with its JSON schema, for the committed file.
#[cfg(test)]
pub(super) fn schema() -> (&'static str, schemars::Schema) {
    (Line::SCHEMA, schemars::schema_for!(Envelope<Line>))
}

pub(super) fn run(args: Args, context: &Context) -> Result<(), CliError> {
    match (&args.live, &args.file) {
        (Some(interface), _) => live(interface, &args, context),
        (None, Some(file)) => judge(file, &args, context),
        (None, None) => Err(CliError::usage("a capture or --live IFACE is needed")),
    }
}

/// Shows what the program on an interface says, until interrupted.
fn live(interface: &str, args: &Args, context: &Context) -> Result<(), CliError> {
    plane::privileged()?;
    let facts = link::facts(interface)?;
    let hint = "cargo xtask build --log, then jvpn-ctl load again: a release writes none";
    let nothing = |error: String| CliError::new(Kind::NotFound, format!("{interface}: {error}")).hint(hint);
    let program = facts.program.ok_or_else(|| nothing("no XDP program is attached".to_owned()))?;
    let mut log = Log::of(program).map_err(|error| nothing(error.to_string()))?;
    let mut left = args.first.unwrap_or(usize::MAX);
    while left > 0 {
        let said = log.wait().map_err(|error| CliError::io("reading the log", &error))?;
        let wanted = said.into_iter().filter(|told| !args.drops || told.verdict.class() == Class::Drop);
        for told in wanted.take(left) {
            left -= 1;
            show_live(&told, context)?;
        }
    }
    Ok(())
}

fn show_live(told: &Told, context: &Context) -> Result<(), CliError> {
    let Told { verdict, slot, locator, counter } = *told;
    let (class, meaning) = (view::class(verdict), verdict.meaning());
    let locator = format!("{locator:016x}");
    if context.json {
        let live = LiveView { verdict: verdict.name(), class, slot, locator, counter, meaning };
        return output::value(&Envelope::from(Line::Live { live }));
    }
    let slot = output::or_dash(slot);
    output::data(&format!("{:<17}  slot {slot:<6}  locator {locator}  counter {counter:<8}  {meaning}", verdict.name()))
}

fn judge(file: &Path, args: &Args, context: &Context) -> Result<(), CliError> {
    let picture = match &args.maps {
        Some(path) => dump::read(path).map_err(|error| unread(path, &error))?,
        None => maps::picture(context)?.1,
    };
    let mut capture = Capture::open(file).map_err(|error| refused(file, error))?;
    let replay = Replay::of(&picture).by(args.ingress);
    let (mut unknown, mut cut) = (0, 0);
    let mut first = None;
    while let Some(captured) = capture.next_frame().map_err(|error| refused(file, error))? {
        let mut frame = captured.frame.clone();
        let judged = replay.judge(&mut frame, captured.at_ns);
        unknown += u64::from(judged.tag_unknown);
        cut += u64::from(captured.captured < captured.frame.len());
        if args.drops && judged.verdict.class() != Class::Drop && !judged.tag_unknown {
            continue;
        }
        let began = *first.get_or_insert(captured.at_ns);
        let view = view_of(&picture, &captured, &judged);
        if context.json {
            output::value(&Envelope::from(Line::Frame(view)))?;
        } else {
            output::data(&text(&view, captured.at_ns.saturating_sub(began)))?;
        }
    }
    let summary: Vec<_> = replay.counted().into_iter().map(|(verdict, frames)| sum(verdict, frames)).collect();
    let notes = notes(&picture, unknown, cut);
    if context.json {
        return output::value(&Envelope::from(Line::Summary { summary, tags_unknown: unknown, notes }));
    }
    notes.iter().for_each(|note| output::talk(&format!("{}: {note}", output::styled(output::MIDDLING, "note"))));
    output::data(&format!("\n{}", table(&summary)))
}

fn unread(path: &Path, error: &DumpError) -> CliError {
    match error {
        DumpError::Io(error) => CliError::io(&path.display().to_string(), error),
        _ => CliError::usage(format!("{}: {error}", path.display())).hint("make one: jvpn-ctl maps --dump FILE"),
    }
}

fn refused(path: &Path, error: CaptureError) -> CliError {
    let place = path.display().to_string();
    match error {
        CaptureError::Io(error) => CliError::io(&place, &error),
        CaptureError::Link(_) => CliError::new(Kind::Usage, format!("{place}: {error}"))
            .hint("capture on one Ethernet interface: tcpdump -i IFACE -w FILE"),
        CaptureError::Short(_) => CliError::failed(format!("{place}: {error}"))
            .hint("what stands above was judged; was the capture still being written?"),
        CaptureError::Form | CaptureError::Broken(..) => CliError::new(Kind::Usage, format!("{place}: {error}")),
    }
}

fn address(source: &Source) -> String {
    SocketAddr::new(Ipv6Addr::from(source.address).to_canonical(), source.port).to_string()
}

fn view_of(picture: &Picture, captured: &Captured, judged: &Judged) -> FrameView {
    let time = jiff::Timestamp::from_nanosecond(captured.at_ns.into()).ok().filter(|_| captured.at_ns != 0);
    let session = judged.slot.filter(|slot| picture.info.contains_key(slot));
    FrameView {
        frame: captured.number,
        time: time.map(|time| time.to_string()),
        source: judged.source.as_ref().map(address),
        kind: judged.kind.map(kind_name),
        slot: judged.slot,
        session_id: session.map(|slot| SessionId(picture.info(slot).session_id).to_string()),
        verdict: judged.verdict.name(),
        class: view::class(judged.verdict),
        tag_unknown: judged.tag_unknown,
        cut: captured.frame.len() - captured.captured,
        meaning: judged.verdict.meaning(),
    }
}

/// One line: frame, seconds since the first, source, type, session, verdict, meaning.
fn text(view: &FrameView, since_ns: u64) -> String {
    let kind = view.kind.unwrap_or("-");
    let verdict = format!("{}{}", view.verdict, if view.tag_unknown { "?" } else { "" });
    let cut = if view.cut == 0 { String::new() } else { format!(" ({} bytes were not captured)", view.cut) };
    let session = view.session_id.as_deref().map_or("-", output::short);
    let (seconds, micros) = (since_ns / 1_000_000_000, since_ns / 1_000 % 1_000_000);
    let source = view.source.as_deref().unwrap_or("-");
    format!(
        "{:>6}  {seconds:>4}.{micros:06}  {source:<22}  {kind:<12}  {session:<8}  {verdict:<17}  {}{cut}",
        view.frame, view.meaning
    )
}

fn sum(verdict: Verdict, frames: u64) -> Sum {
    let class = view::class(verdict);
    Sum { verdict: verdict.name(), class, frames, meaning: verdict.meaning(), advice: verdict.advice() }
}

fn table(summary: &[Sum]) -> String {
    if summary.is_empty() {
        return "no frame in the capture".to_owned();
    }
    let row = |sum: &Sum| [sum.verdict.to_owned(), sum.class.to_owned(), sum.frames.to_string(), sum.advice.to_owned()];
    output::table(["verdict", "class", "frames", "what to do"], summary.iter().map(row))
}

fn notes(picture: &Picture, unknown: u64, cut: u64) -> Vec<String> {
    let mut notes = Vec::new();
    if unknown > 0 {
        notes.push(format!(
            "{unknown} tags could not be checked without the steering keys: where a `?` stands (`tag_unknown`) the verdict \
             is that of a right tag, else FORGED_TAG; `jvpn-ctl maps --dump FILE --with-keys` writes them"
        ));
    }
    let unresolved = |words: &[u64; HOP_WORDS]| !Hop::from_words(words).resolved();
    if picture.config().role == ROLE_RELAY && picture.hops.values().any(unresolved) {
        notes.push(
            "a way that is not resolved is asked of the kernel's routes, which no dump has: NO_NEIGHBOUR here".into(),
        );
    }
    if picture.secrets.is_none() && picture.config().handshake_rate != 0 {
        notes
            .push("the limit on handshakes begins with full buckets: which bucket is whose is not in this dump".into());
    }
    if cut > 0 {
        notes.push(format!("{cut} frames were cut by the capture (tcpdump -s 0 keeps them whole); zeros were judged"));
    }
    notes
}
