//! The files in their folders: what of the lists no compiler sees. Not among the crate's own tests, which run where there are
//! no files too.

use std::collections::BTreeSet;

use gristmill_kernels::metal::SOURCES;

fn names(folder: &str, extensions: &[&str]) -> BTreeSet<String> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let entries =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    entries.filter(|name| extensions.iter().any(|end| name.ends_with(end))).collect()
}

#[test]
fn every_source_is_in_the_list() {
    let mut files = names("metal", &[".h", ".metal"]);
    files.extend(names("metal/quant", &[".h"]).into_iter().map(|name| format!("quant/{name}")));
    assert_eq!(files, SOURCES.iter().map(|(path, _)| path.to_string()).collect());
}

#[test]
fn every_format_has_a_header_of_its_file_s_name_and_every_header_a_format() {
    // Files of the folder that hold no format.
    let others = ["bits", "fast", "ggml_type", "grids", "mod", "tests"];
    let bare = |names: BTreeSet<String>, end: &str| -> BTreeSet<String> {
        names.iter().map(|name| name.trim_end_matches(end).to_owned()).collect()
    };
    let mut formats = bare(names("src/quant", &[".rs"]), ".rs");
    formats.retain(|name| !others.contains(&name.as_str()));
    assert_eq!(bare(names("metal/quant", &[".h"]), ".h"), formats);
    let (_, list) = SOURCES.iter().find(|(path, _)| *path == "formats.h").unwrap();
    for name in &formats {
        assert!(list.contains(&format!("#include \"quant/{name}.h\"")), "{name} is not included");
    }
}
