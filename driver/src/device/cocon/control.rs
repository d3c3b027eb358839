//! Messages of the control queues (virtio 1.3, section 5.3.6.2).

/// Bytes of a message without what some carry behind it.
pub(super) const MESSAGE_BYTES: usize = 8;

/// What a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// Guest: its driver is ready (1) or has failed (0).
    DeviceReady,
    /// Device: here is a port.
    PortAdd,
    /// Guest: it can use the port (1) or cannot (0).
    PortReady,
    /// Device: the port is a console.
    ConsolePort,
    /// Device: the console has this size, which follows.
    Resize,
    /// Either: the port is open at the sender's side (1) or no longer (0).
    PortOpen,
    /// Device: the port has this name, which follows.
    PortName,
}

const EVENTS: [(Event, u16); 7] = [
    (Event::DeviceReady, 0),
    (Event::PortAdd, 1),
    (Event::PortReady, 3),
    (Event::ConsolePort, 4),
    (Event::Resize, 5),
    (Event::PortOpen, 6),
    (Event::PortName, 7),
];

/// A message: `struct virtio_console_control`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) port: u32,
    pub(super) event: Event,
    pub(super) value: u16,
}

impl Message {
    /// Reads a message; nothing where its event is unknown.
    pub(super) fn parse(bytes: &[u8; MESSAGE_BYTES]) -> Option<Self> {
        let [a, b, c, d, e, f, g, h] = *bytes;
        let number = u16::from_le_bytes([e, f]);
        let (event, _) = EVENTS.iter().find(|(_, known)| *known == number)?;
        Some(Self {
            port: u32::from_le_bytes([a, b, c, d]),
            event: *event,
            value: u16::from_le_bytes([g, h]),
        })
    }

    pub(super) fn to_bytes(self) -> [u8; MESSAGE_BYTES] {
        let number = EVENTS.iter().find(|(event, _)| *event == self.event);
        let number = number.map_or(u16::MAX, |(_, number)| *number);
        let ([a, b, c, d], [e, f], [g, h]) = (
            self.port.to_le_bytes(),
            number.to_le_bytes(),
            self.value.to_le_bytes(),
        );
        [a, b, c, d, e, f, g, h]
    }
}

/// What follows [`Event::Resize`].
pub(super) fn dimensions(columns: u16, rows: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (columns.to_le_bytes(), rows.to_le_bytes());
    [a, b, c, d]
}
