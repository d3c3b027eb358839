//! What apt in a step is told: where the proxy is, and which archives there are.
//!
//! It is in a file of the guest's memory that APT_CONFIG names, so the image has no trace of it.
//! apt reads that file before its own, so a setting of the image wins over the same one here.

use coop_runtime::{GATEWAY, TransientFile};

use super::shelf::guest_url;
use super::{PORT, Packages};
use crate::guest::Network;

/// The file that APT_CONFIG names.
pub(in crate::guest) const CONFIGURATION: &str = "/run/coop/apt.conf";
/// The archives of a step that reaches nothing else.
const SOURCES: &str = "/run/coop/apt.list";

/// The files for a step with this network.
pub(in crate::guest) fn files(packages: &Packages<'_>, network: Network) -> Vec<TransientFile> {
    let proxy = format!("http://{GATEWAY}:{PORT}/");
    let mut lines = vec![
        // Descriptions in other languages, and differences to lists that are not there.
        "Acquire::Languages \"none\";".to_owned(),
        "Acquire::PDiffs \"false\";".to_owned(),
    ];
    let mut files = Vec::new();
    if network == Network::Packages {
        lines.push(format!("Acquire::http::Proxy \"{proxy}\";"));
        lines.push(format!("Dir::Etc::SourceList \"{SOURCES}\";"));
        lines.push("Dir::Etc::SourceParts \"/dev/null\";".to_owned());
        files.push(file(SOURCES, &sources(packages)));
    } else {
        let urls = packages.suites.iter().map(|suite| &suite.mirror.url);
        let mut hosts: Vec<&str> = urls.filter_map(|url| plain_host(url)).collect();
        hosts.sort_unstable();
        hosts.dedup();
        let hosts = hosts.into_iter();
        lines.extend(hosts.map(|host| format!("Acquire::http::Proxy::{host} \"{proxy}\";")));
    }
    if packages.is_locked || network == Network::Packages {
        // What a lock names is as good as on its first day, and the dates of the rest were judged
        // before the guest gets it.
        lines.push("Acquire::Check-Valid-Until \"false\";".to_owned());
        lines.push("Acquire::Check-Date \"false\";".to_owned());
    }
    files.push(file(CONFIGURATION, &lines));
    files
}

fn file(path: &str, lines: &[String]) -> TransientFile {
    TransientFile {
        path: path.as_bytes().to_vec(),
        mode: 0o444,
        content: format!("{}\n", lines.join("\n")).into_bytes(),
    }
}

/// One line for each suite. Signatures are verified before the guest gets anything, by keys that
/// the guest need not have.
fn sources(packages: &Packages<'_>) -> Vec<String> {
    let suites = packages.suites.iter().enumerate();
    let line = |(number, suite): (usize, &crate::debian::suite::SuiteRequest)| {
        let components = match suite.components.as_slice() {
            [] => "main".to_owned(),
            some => some.join(" "),
        };
        let url = guest_url(&suite.mirror.url, number);
        format!("deb [trusted=yes] {url} {} {components}", suite.suite)
    };
    suites.map(line).collect()
}

/// The name of the host of an archive that is reached without encryption, as apt's settings take
/// it.
fn plain_host(url: &str) -> Option<&str> {
    let rest = url.strip_prefix("http://")?;
    let host = rest.split('/').next()?;
    let host = host.split_once(':').map_or(host, |(host, _)| host);
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    (!host.is_empty() && host.bytes().all(is_plain)).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_plain_or_none() {
        assert_eq!(
            plain_host("http://m.invalid:8080/debian"),
            Some("m.invalid")
        );
        for url in [
            "https://m.invalid/",
            "http://[::1]/",
            "file:///srv",
            "http://u@m/",
        ] {
            assert_eq!(plain_host(url), None, "{url}");
        }
    }
}
