use std::collections::BTreeSet;

use super::*;
use crate::quant::GgmlType;

fn source(path: &str) -> &'static str {
    SOURCES.iter().find(|(name, _)| *name == path).unwrap_or_else(|| panic!("no {path}")).1
}

fn names(folder: &str, extensions: &[&str]) -> BTreeSet<String> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
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
    let list = source("formats.h");
    for name in &formats {
        assert!(list.contains(&format!("#include \"quant/{name}.h\"")), "{name} is not included");
    }
}

#[test]
fn both_lists_of_formats_are_one() {
    let list = source("formats.h").split("#define FOR_EACH_FORMAT(X)").nth(1).unwrap();
    let list = list.split("///").next().unwrap();
    let found: Vec<_> = list.split("X(").skip(1).map(|rest| rest.split(')').next().unwrap().to_owned()).collect();
    let expected: Vec<_> = GgmlType::COMPUTABLE.iter().map(|ty| ty.name().to_lowercase()).collect();
    assert_eq!(found, expected);
}

#[test]
fn arguments_are_the_same_on_both_sides() {
    let text = source("params.h");
    assert_eq!(text.matches("\nstruct ").count(), params::ALL.len());
    for (name, fields, size) in params::ALL {
        let (_, rest) = text.split_once(&format!("struct {name} {{\n")).unwrap_or_else(|| panic!("no {name}"));
        let (body, after) = rest.split_once("};").unwrap();
        let found: Vec<_> = body.lines().map(|line| line.split(';').next().unwrap().trim().to_owned()).collect();
        let expected: Vec<_> =
            fields.iter().map(|field| field.replace("u32 ", "uint ").replace("f32 ", "float ")).collect();
        assert_eq!(found, expected, "{name}");
        assert!(after.contains(&format!("static_assert(sizeof({name}) == {size}, ")), "{name} of {size} bytes");
    }
}

#[test]
fn names_of_functions_count_as_on_the_gpu() {
    // The order of the variants gives the numbers there.
    let text = source("params.h");
    let order = |start: &str| -> Vec<&str> {
        let rest = &text[text.find(&format!("    {start}_")).unwrap()..];
        rest.lines().map_while(|line| line.trim().strip_suffix(',')).collect()
    };
    let kind = |launch: Launch| bytemuck::pod_read_unaligned::<params::MapParams>(launch.params()).kind as usize;
    use crate::activation::Activation as A;
    let activations = [
        (A::Silu, "ACTIVATION_SILU"),
        (A::GeluTanh, "ACTIVATION_GELU_TANH"),
        (A::Gelu, "ACTIVATION_GELU"),
        (A::Relu, "ACTIVATION_RELU"),
        (A::ReluSquared, "ACTIVATION_RELU_SQUARED"),
        (A::Sigmoid, "ACTIVATION_SIGMOID"),
        (A::Identity, "ACTIVATION_IDENTITY"),
        (A::SwigluClamped, "ACTIVATION_SWIGLU_CLAMPED"),
    ];
    for (activation, name) in activations {
        assert_eq!(order("ACTIVATION")[kind(launch::activate(activation, 1, 1, false))], name);
    }
    use launch::{Map, With};
    let maps = [
        (Map::Scale(1.0), "MAP_SCALE"),
        (Map::Clamp(1.0), "MAP_CLAMP"),
        (Map::SoftCap(1.0), "MAP_SOFT_CAP"),
        (Map::Softplus, "MAP_SOFTPLUS"),
        (Map::Exp, "MAP_EXP"),
    ];
    for (map, name) in maps {
        assert_eq!(order("MAP")[kind(launch::map(map, 1, 1))], name);
    }
    let withs = [
        (With::Add, "WITH_ADD"),
        (With::RowFactor, "WITH_ROW_FACTOR"),
        (With::ColumnFactor, "WITH_COLUMN_FACTOR"),
        (With::ColumnTerm, "WITH_COLUMN_TERM"),
    ];
    for (with, name) in withs {
        assert_eq!(order("WITH")[kind(launch::with(with, 1, 1))], name);
    }
}

#[test]
fn tile_sizes_are_those_of_the_kernels() {
    let says = |path: &str, what: &str| assert!(source(path).contains(what), "{path}: {what}");
    says("common.h", "ushort LANES = 32;");
    says("matvec.metal", "ushort MATVEC_ROWS = 4;");
    says("matvec.metal", "ushort MATVEC_SIMDS = 2;");
    says("matvec.metal", "matvec<format, 4>");
    says("matmul.metal", "ushort TILE = 64;");
    says("matmul.metal", "ushort DEPTH = 16;");
    says("matmul.metal", "ushort MATMUL_THREADS = 128;");
    says("attention.metal", "ushort ATTENTION_SIMDS = 4;");
    says("attention.metal", "ushort QUERIES = 4;");
}

#[test]
fn grids_are_the_same_points_in_both_tongues() {
    let text = source("grids.h");
    let mut expected = text.lines().take(5).map(|line| format!("{line}\n")).collect::<String>();
    expected.pop();
    let mut table = |name: &str, points: Vec<u16>| {
        expected += &format!("\n\nconstant ushort {name}[{}] = {{", points.len());
        for (i, point) in points.iter().enumerate() {
            expected += if i % 16 == 0 { "\n    " } else { " " };
            expected += &format!("0x{point:04x},");
        }
        expected += "\n};";
    };
    for (name, points) in crate::quant::grids::as_numbers() {
        table(name, points);
    }
    assert!(text == expected + "\n", "metal/grids.h is not what src/quant/grids.rs says");
}
