//! The guest's agent, embedded.

/// The static program that becomes `/init` of every guest; built by `build.rs`.
pub(crate) static AGENT: &[u8] = include_bytes!(env!("COOP_AGENT"));

#[cfg(test)]
mod tests {
    #[test]
    fn the_agent_is_a_small_program() {
        assert!(super::AGENT.starts_with(b"\x7fELF"));
        assert!(super::AGENT.len() < 2 << 20, "{} bytes", super::AGENT.len());
    }
}
