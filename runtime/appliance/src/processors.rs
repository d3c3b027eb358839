//! How many processors a kernel can have.

/// How many processors a kernel with this .config can have: one without `CONFIG_SMP`, else
/// `CONFIG_NR_CPUS`.
#[must_use]
pub fn processors_of_config(config: &str) -> u32 {
    let value = |symbol: &str| {
        let mut lines = config.lines();
        lines.find_map(|line| line.strip_prefix(symbol)?.strip_prefix('='))
    };
    if value("CONFIG_SMP") != Some("y") {
        return 1;
    }
    let most = value("CONFIG_NR_CPUS").and_then(|number| number.parse().ok());
    most.unwrap_or(1).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_says_it() {
        for (config, expected) in [
            ("", 1),
            ("CONFIG_NR_CPUS=16\n", 1),
            ("# CONFIG_SMP is not set\nCONFIG_NR_CPUS=16\n", 1),
            (
                "CONFIG_SMP=y\nCONFIG_NR_CPUS_DEFAULT=8\nCONFIG_NR_CPUS=16\n",
                16,
            ),
            ("CONFIG_SMP=y\nCONFIG_NR_CPUS=0\n", 1),
            ("CONFIG_SMP=y\nCONFIG_NR_CPUS=many\n", 1),
        ] {
            assert_eq!(processors_of_config(config), expected, "{config}");
        }
    }
}
