//! Pieces of output on their way from the thread that makes them to the reader.
//!
//! A lane is one stretch of the output: a bounded queue of pieces, then a result. Whoever drops the
//! reading end stops the writing one at its next piece. Empty pieces go back to a [`Pool`], so that
//! a long stream needs few allocations and no page twice.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

use super::error::CompressError;

/// Size of one piece.
pub(super) const PIECE_BYTES: usize = 256 << 10;
/// How many pieces wait in a lane: together more than a bzip2 block of ordinary data.
const PIECES_QUEUED_MAX: usize = 6;
/// How many empty pieces are kept.
const PIECES_POOLED_MAX: usize = 32;

/// A buffer of [`PIECE_BYTES`] of which the first `filled` count.
pub(super) struct Piece {
    pub(super) bytes: Vec<u8>,
    pub(super) filled: usize,
}

/// Empty pieces, shared by all lanes of a stream.
#[derive(Clone, Default)]
pub(super) struct Pool(Arc<Mutex<Vec<Piece>>>);

impl Pool {
    fn take(&self) -> Piece {
        let kept = self.0.lock().ok().and_then(|mut pieces| pieces.pop());
        kept.unwrap_or_else(|| Piece {
            bytes: vec![0; PIECE_BYTES],
            filled: 0,
        })
    }

    fn put(&self, mut piece: Piece) {
        if let Ok(mut pieces) = self.0.lock()
            && pieces.len() < PIECES_POOLED_MAX
            && piece.bytes.len() == PIECE_BYTES
        {
            piece.filled = 0;
            pieces.push(piece);
        }
    }
}

enum Message<T> {
    Piece(Piece),
    End(io::Result<T>),
}

/// What a lane gives next.
pub(super) enum Next<T> {
    Piece(Piece),
    End(T),
}

/// The reader has gone.
pub(super) struct Unwanted;

/// The writing end.
pub(super) struct LaneWriter<T> {
    queue: SyncSender<Message<T>>,
    pool: Pool,
}

/// The reading end.
pub(super) struct LaneReader<T>(Receiver<Message<T>>);

/// A lane with nothing in it.
pub(super) fn lane<T>(pool: &Pool) -> (LaneWriter<T>, LaneReader<T>) {
    let (queue, receiver) = sync_channel(PIECES_QUEUED_MAX);
    let pool = pool.clone();
    (LaneWriter { queue, pool }, LaneReader(receiver))
}

impl<T> LaneWriter<T> {
    /// An empty piece to fill.
    pub(super) fn piece(&self) -> Piece {
        self.pool.take()
    }

    /// Sends a piece, waiting while the lane is full; empty ones are not sent.
    pub(super) fn send(&self, piece: Piece) -> Result<(), Unwanted> {
        if piece.filled == 0 {
            self.pool.put(piece);
            return Ok(());
        }
        self.queue.send(Message::Piece(piece)).map_err(|_| Unwanted)
    }

    /// Ends the lane.
    pub(super) fn end(self, result: io::Result<T>) {
        // Nobody wants it where the reader has gone.
        let _ = self.queue.send(Message::End(result));
    }

    /// Sends everything that a reader gives; what comes before an error is sent before it.
    pub(super) fn copy(&self, reader: &mut impl Read) -> Result<io::Result<()>, Unwanted> {
        loop {
            let mut piece = self.piece();
            let result = fill(reader, &mut piece);
            self.send(piece)?;
            match result {
                Ok(true) => {}
                Ok(false) => return Ok(Ok(())),
                Err(error) => return Ok(Err(error)),
            }
        }
    }
}

/// Fills a piece; false where the reader ended.
fn fill(reader: &mut impl Read, piece: &mut Piece) -> io::Result<bool> {
    while piece.filled < piece.bytes.len() {
        match reader.read(&mut piece.bytes[piece.filled..]) {
            Ok(0) => return Ok(false),
            Ok(count) => piece.filled = piece.filled.saturating_add(count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

impl<T> LaneReader<T> {
    /// Waits for the next piece or the end, which comes once.
    pub(super) fn next(&mut self) -> io::Result<Next<T>> {
        match self.0.recv() {
            Ok(Message::Piece(piece)) => Ok(Next::Piece(piece)),
            Ok(Message::End(result)) => result.map(Next::End),
            Err(_) => Err(CompressError::ThreadLost.into()),
        }
    }
}

/// Gives the pieces of a stream in order.
pub(super) trait Pieces {
    /// The next piece; `None` at the end. It is not called again after the end or an error.
    fn next_piece(&mut self) -> io::Result<Option<Piece>>;
}

impl Pieces for LaneReader<()> {
    fn next_piece(&mut self) -> io::Result<Option<Piece>> {
        match self.next()? {
            Next::Piece(piece) => Ok(Some(piece)),
            Next::End(()) => Ok(None),
        }
    }
}

/// Reads pieces as a stream. After an error it is at its end.
pub(super) struct PieceReader<S> {
    source: Option<S>,
    pool: Pool,
    current: Option<Piece>,
    position: usize,
}

impl<S: Pieces> PieceReader<S> {
    pub(super) fn new(source: S, pool: Pool) -> Self {
        Self {
            source: Some(source),
            pool,
            current: None,
            position: 0,
        }
    }

    /// Gets the next piece where the current one is used up; false at the end.
    fn advance(&mut self) -> io::Result<bool> {
        if let Some(piece) = &self.current
            && self.position < piece.filled
        {
            return Ok(true);
        }
        if let Some(piece) = self.current.take() {
            self.pool.put(piece);
        }
        self.position = 0;
        let Some(mut source) = self.source.take() else {
            return Ok(false);
        };
        self.current = source.next_piece()?;
        if self.current.is_some() {
            self.source = Some(source);
        }
        Ok(self.current.is_some())
    }
}

impl<S: Pieces> Read for PieceReader<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() || !self.advance()? {
            return Ok(0);
        }
        let Some(piece) = &self.current else {
            return Ok(0);
        };
        let available = &piece.bytes[self.position..piece.filled];
        let count = available.len().min(buffer.len());
        buffer[..count].copy_from_slice(&available[..count]);
        self.position = self.position.saturating_add(count);
        Ok(count)
    }
}
