//! Borders between the rooms.
