//! Starting a confined child.
