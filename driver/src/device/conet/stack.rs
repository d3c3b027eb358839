//! What TCP and UDP share: the way to the guest, the way to the host, and the time.

use smoltcp::iface::{Config, Interface, PollIngressSingleResult, PollResult, SocketSet};
use smoltcp::phy::{Checksum, ChecksumCapabilities};
use smoltcp::wire::{EthernetAddress, IpCidr};

use super::Offloads;
use super::frame::Sender;
use super::options::{GATEWAY, PREFIX_BITS};
use super::out::{Link, OutQueue};
use super::policy::Policy;
use super::reactor::{Micros, Reactor};

/// Everything but the flows themselves.
pub(super) struct Stack {
    /// The end of the link that is ours.
    iface: Interface,
    /// Frames that wait for the guest.
    pub(super) out: OutQueue,
    /// How frames for the guest are made.
    pub(super) sender: Sender,
    /// Who computes and checks checksums.
    pub(super) checksums: ChecksumCapabilities,
    /// The guest takes segments as long as a packet can be.
    large_segments: bool,
    /// The host's sockets and the timers.
    pub(super) reactor: Reactor,
    /// Where the guest may go.
    pub(super) policy: Policy,
    /// The time of the present batch of work.
    pub(super) now: Micros,
    /// What was refused: by the rules, for want of room, or by the host for want of descriptors.
    pub(super) refused: u64,
}

impl Stack {
    pub(super) fn new(sender: Sender, reactor: Reactor, policy: Policy) -> Self {
        let checksums = ChecksumCapabilities::default();
        let mut out = OutQueue::default();
        let now = reactor.now();
        let iface = interface(sender.from, sender.mtu, &mut out, (&checksums, false), now);
        Self {
            iface,
            out,
            sender,
            checksums,
            large_segments: false,
            reactor,
            policy,
            now,
            refused: 0,
        }
    }

    /// Hands a frame of the guest to the sockets of one flow, or to none.
    pub(super) fn ingress(&mut self, frame: &[u8], sockets: &mut SocketSet<'_>) {
        let mut link = Link {
            frame: Some(frame),
            out: &mut self.out,
            mtu: self.sender.mtu,
            checksums: &self.checksums,
            large_segments: self.large_segments,
        };
        let _: PollIngressSingleResult =
            self.iface
                .poll_ingress_single(self.now.into(), &mut link, sockets);
    }

    /// Sends one packet of a flow's socket, if it has one to send and there is room.
    pub(super) fn egress(&mut self, sockets: &mut SocketSet<'_>) -> bool {
        let mut link = Link {
            frame: None,
            out: &mut self.out,
            mtu: self.sender.mtu,
            checksums: &self.checksums,
            large_segments: self.large_segments,
        };
        self.iface.poll_egress(self.now.into(), &mut link, sockets)
            == PollResult::SocketStateChanged
    }

    /// When a flow's socket wants to be asked again.
    pub(super) fn next_turn(&mut self, sockets: &SocketSet<'_>) -> Option<Micros> {
        let at = self.iface.poll_at(self.now.into(), sockets)?;
        let at = Micros(u64::try_from(at.total_micros()).unwrap_or(0));
        // What cannot go out now (a full window) must not turn into a busy loop.
        Some(at.max(Micros(self.now.0.saturating_add(1000))))
    }

    /// What a new connection to the guest needs.
    pub(super) fn context(&mut self) -> &mut smoltcp::iface::Context {
        self.iface.context()
    }

    /// Starts the link anew, with what both sides agreed to leave out.
    pub(super) fn reset(&mut self, offloads: Offloads) {
        let (check, compute) = (
            !offloads.guest_omits_checksums,
            !offloads.guest_completes_checksums,
        );
        self.out.clear();
        self.out.partial = offloads.guest_completes_checksums;
        self.checksums.udp = if check { Checksum::Both } else { Checksum::Tx };
        self.checksums.tcp = match (check, compute) {
            (true, true) => Checksum::Both,
            (true, false) => Checksum::Rx,
            (false, true) => Checksum::Tx,
            (false, false) => Checksum::None,
        };
        self.large_segments =
            offloads.guest_takes_large_segments && offloads.guest_completes_checksums;
        self.iface = interface(
            self.sender.from,
            self.sender.mtu,
            &mut self.out,
            (&self.checksums, self.large_segments),
            self.now,
        );
    }
}

fn interface(
    mac: EthernetAddress,
    mtu: usize,
    out: &mut OutQueue,
    (checksums, large_segments): (&ChecksumCapabilities, bool),
    now: Micros,
) -> Interface {
    let mut link = Link {
        frame: None,
        out,
        mtu,
        checksums,
        large_segments,
    };
    // Sequence numbers need not be secret on a link that nobody else can reach.
    let mut iface = Interface::new(Config::new(mac.into()), &mut link, now.into());
    iface.set_any_ip(true);
    iface.update_ip_addrs(|addresses| {
        // Cannot fail: there is room for at least one address.
        let _ = addresses.push(IpCidr::new(GATEWAY.into(), PREFIX_BITS));
    });
    iface
}
