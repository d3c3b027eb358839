//! Gives the program the digest of the code that makes images, for the keys of steps: what another
//! coop made of the same inputs may be something else.

use std::collections::hash_map::DefaultHasher;
use std::hash::Hasher;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// The folders with code that can change an image, from this one: what makes trees and images, and
/// what guests start with and run on.
const FOLDERS: &[&str] = &[
    "src",
    "image/src",
    "../runtime/src",
    "../runtime/guest/src",
    "../driver/src",
];

fn main() -> io::Result<()> {
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let mut hasher = DefaultHasher::new();
    for folder in FOLDERS {
        println!("cargo:rerun-if-changed={folder}");
        hash_folder(&here.join(folder), &mut hasher)?;
    }
    println!("cargo:rustc-env=COOP_CODE={:016x}", hasher.finish());
    Ok(())
}

fn hash_folder(folder: &Path, hasher: &mut DefaultHasher) -> io::Result<()> {
    let mut paths = fs::read_dir(folder)?
        .map(|entry| Ok(entry?.path()))
        .collect::<io::Result<Vec<PathBuf>>>()?;
    paths.sort();
    for path in paths {
        let name = path.file_name().unwrap_or_default();
        hasher.write(name.as_encoded_bytes());
        if path.is_dir() {
            hash_folder(&path, hasher)?;
        } else {
            let bytes = fs::read(&path)?;
            hasher.write_usize(bytes.len());
            hasher.write(&bytes);
        }
    }
    Ok(())
}
