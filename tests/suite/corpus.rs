//! Replays the fuzz targets' corpus.

use fs_err as fs;

#[allow(unreachable_pub)]
#[path = "../fuzz/src/targets/mod.rs"]
mod targets;

#[test]
fn every_input_of_the_corpus_is_survived() {
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus");
    for (name, target) in targets::TARGETS {
        let mut inputs = 0;
        for entry in fs::read_dir(corpus.join(name)).unwrap() {
            target(&fs::read(entry.unwrap().path()).unwrap());
            inputs += 1;
        }
        assert!(inputs > 0, "{name} has no corpus");
    }
}
