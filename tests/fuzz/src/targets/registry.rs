//! What registries say, and what is kept of who somebody is to them.

use std::os::fd::AsRawFd;
use std::path::Path;

use coop_appliance::bundle::{BlobDigest, OciIndex, OciManifest};
use coop_builder::registry::{Credential, Credentials, Reference, answers};

use super::file_of;

/// Reads a name and what its registry answers, zero bytes between: a challenge, where a list goes on,
/// two ranges, and a document. Sentences about them can be printed.
pub fn registry(data: &[u8]) {
    let mut parts = data.splitn(6, |byte| *byte == 0);
    let mut next = || parts.next().unwrap_or_default();
    let mut text = || String::from_utf8_lossy(next()).into_owned();
    let (name, challenge, link) = (text(), text(), text());
    reference(&name);
    for found in answers::challenges(&challenge) {
        assert!(!found.scheme.is_empty() && found.parameters.len() <= 32);
        let length: usize = found.parameters.values().map(String::len).sum();
        assert!(found.scheme.len() + length <= challenge.len());
    }
    if let Some(target) = answers::next_page(&link) {
        assert!(link.contains(&target));
    }
    let (sent, received) = (text(), text());
    let _ = answers::range_start(&sent);
    assert_ne!(answers::received_by(&received), Some(0));
    document(next());
}

/// What a name says, it says again; nothing in it leads an address elsewhere.
fn reference(name: &str) {
    let read = match Reference::parse(name) {
        Ok(read) => read,
        Err(error) => return printable(&error),
    };
    let written = read.to_string();
    assert_eq!(Reference::parse(&written).as_ref(), Ok(&read));
    assert!(written.is_ascii() && !written.contains(['?', '#', '%', '\\', ' ']));
    assert!(!read.authority.contains(['/', '@']) && read.authority.starts_with(read.host()));
    let mut words = read.repository.split('/');
    assert!(words.all(|word| !matches!(word, "" | "." | "..")));
}

/// What a registry sends in place of each kind of document.
fn document(bytes: &[u8]) {
    if let Err(error) = OciManifest::parse(bytes) {
        printable(&error);
    }
    match OciIndex::parse(bytes) {
        Ok(index) => {
            // It goes back to the registry with one more in it.
            let again = OciIndex::parse(&index.to_bytes()).expect("what was written reads");
            assert_eq!(again.manifests, index.manifests);
        }
        Err(error) => printable(&error),
    }
    printable(&answers::problem(bytes));
    match answers::token_of(bytes) {
        Ok(token) => assert!(!token.is_empty() && token.len() <= bytes.len()),
        Err(problem) => printable(&problem),
    }
    let _ = String::from_utf8_lossy(bytes).parse::<BlobDigest>();
}

/// Looks for a registry and its repository in a file of credentials, a zero byte between them. No
/// program is where the file's helpers could be.
pub fn credentials(data: &[u8]) {
    let zero = data.iter().position(|byte| *byte == 0);
    let (place, text) = data.split_at(zero.unwrap_or(data.len()));
    let text = text.get(1..).unwrap_or_default();
    let place = String::from_utf8_lossy(place);
    let (authority, repository) = place.split_once('/').unwrap_or((&place, "a"));
    let file = file_of(text);
    let credentials = Credentials {
        files: vec![Path::new("/proc/self/fd").join(file.as_raw_fd().to_string())],
        programs: Vec::new(),
    };
    match credentials.find(authority, repository) {
        Ok(None) => {}
        Ok(Some(found)) => {
            assert!(format!("{found:?}").ends_with("…)"));
            if let Credential::Identity(token) | Credential::Token(token) = found {
                assert!(token.len() <= text.len());
            }
        }
        Err(error) if authority.contains(char::is_control) => drop(error),
        Err(error) => printable(&error),
    }
}

fn printable(said: &dyn std::fmt::Display) {
    let said = said.to_string();
    assert!(!said.contains(char::is_control), "{said:?}");
}
