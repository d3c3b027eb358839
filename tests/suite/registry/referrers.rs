//! A registry that keeps the list of what is about a manifest (distribution specification 1.1,
//! "Referrers API"): Debian's does not, so a proxy keeps it.

use std::sync::Mutex;

use serde_json::{Value, json};

use super::proxy::{Proxy, Verdict, answer};
use super::{INDEX, MANIFEST};
use crate::support::sha256_of;

/// A registry with the list, before one without.
pub fn with_list(upstream: &str) -> Proxy {
    // The subjects, and the descriptors of what is about them.
    let listed: Mutex<Vec<(String, Value)>> = Mutex::default();
    Proxy::start(upstream, move |request| {
        let mut listed = listed.lock().unwrap();
        if let Some((_, rest)) = request.path.split_once("/referrers/") {
            let subject = rest.split('?').next().unwrap();
            let about = listed.iter().filter(|(one, _)| one == subject);
            let manifests: Vec<&Value> = about.map(|(_, descriptor)| descriptor).collect();
            let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
            let head = [("Content-Type", INDEX)];
            return Verdict::Answer(answer("200 OK", &head, index.to_string().as_bytes()));
        }
        let manifest = serde_json::from_slice::<Value>(&request.body).unwrap_or_default();
        match (&*request.method, manifest["subject"]["digest"].as_str()) {
            ("PUT", Some(subject)) => {
                let descriptor = json!({
                    "mediaType": MANIFEST,
                    "digest": format!("sha256:{}", sha256_of(&request.body)),
                    "size": request.body.len(),
                    "artifactType": manifest["artifactType"],
                });
                listed.push((subject.to_owned(), descriptor));
                Verdict::Header(format!("OCI-Subject: {subject}\r\n"))
            }
            _ => Verdict::Forward,
        }
    })
}
