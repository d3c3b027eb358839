//! Formats whose files are members one after the other, each with a decoder of its own.

use std::io::{self, Read};

use super::input::Input;

/// A decoder of one member.
pub(super) trait Member<R: Read>: Read + Sized {
    /// Begins the member that starts where the input is; `None` is the input's end.
    fn begin(input: Input<R>) -> io::Result<Option<Self>>;

    /// What comes behind the member.
    fn into_input(self) -> Input<R>;

    /// The decoder's error in this project's terms, with the place in the input.
    fn explain(&self, error: io::Error) -> io::Error;
}

/// The plain bytes of all members. After an error it reads as if it had ended.
pub(super) struct Members<R: Read, M> {
    state: State<R, M>,
}

enum State<R: Read, M> {
    Between(Input<R>),
    Inside(Box<M>),
    Finished,
}

impl<R: Read, M: Member<R>> Members<R, M> {
    pub(super) fn new(input: Input<R>) -> Self {
        let state = State::Between(input);
        Self { state }
    }
}

impl<R: Read, M: Member<R>> Read for Members<R, M> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            match std::mem::replace(&mut self.state, State::Finished) {
                State::Finished => return Ok(0),
                State::Between(input) => {
                    if let Some(member) = M::begin(input)? {
                        self.state = State::Inside(Box::new(member));
                    }
                }
                State::Inside(mut member) => match member.read(buffer) {
                    Ok(0) => self.state = State::Between(member.into_input()),
                    Ok(count) => {
                        self.state = State::Inside(member);
                        return Ok(count);
                    }
                    Err(error) => return Err(member.explain(error)),
                },
            }
        }
    }
}
