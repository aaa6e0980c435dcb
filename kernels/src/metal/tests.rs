use super::*;
use crate::quant::GgmlType;

fn source(path: &str) -> &'static str {
    SOURCES.iter().find(|(name, _)| *name == path).unwrap_or_else(|| panic!("no {path}")).1
}

#[test]
fn both_lists_of_formats_are_one() {
    let list = source("formats.h").split("#define FOR_EACH_FORMAT(X)").nth(1).unwrap();
    let list = list.split("///").next().unwrap();
    let found: Vec<_> =
        list.split("X(").skip(1).map(|rest| rest.split(')').next().unwrap().to_owned()).collect();
    let expected: Vec<_> = GgmlType::COMPUTABLE.iter().map(|ty| ty.name().to_lowercase()).collect();
    assert_eq!(found, expected);
}

#[test]
fn arguments_are_the_same_on_both_sides() {
    let text = source("params.h");
    assert_eq!(text.matches("\nstruct ").count(), params::ALL.len());
    for (name, fields, size) in params::ALL {
        let (_, rest) =
            text.split_once(&format!("struct {name} {{\n")).unwrap_or_else(|| panic!("no {name}"));
        let (body, after) = rest.split_once("};").unwrap();
        let found: Vec<_> =
            body.lines().map(|line| line.split(';').next().unwrap().trim().to_owned()).collect();
        let expected: Vec<_> =
            fields.iter().map(|field| field.replace("u32 ", "uint ").replace("f32 ", "float ")).collect();
        assert_eq!(found, expected, "{name}");
        assert!(
            after.contains(&format!("static_assert(sizeof({name}) == {size}, ")),
            "{name} of {size} bytes"
        );
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
    let kind =
        |launch: Launch| bytemuck::pod_read_unaligned::<params::MapParams>(launch.params()).kind as usize;
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
    use launch::Scoring as S;
    let scorings = [
        (S::Softmax, "SCORING_SOFTMAX"),
        (S::Sigmoid, "SCORING_SIGMOID"),
        (S::SoftmaxOfChosen, "SCORING_SOFTMAX_OF_CHOSEN"),
    ];
    for (scoring, name) in scorings {
        assert_eq!(order("SCORING")[scoring as usize], name);
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
    says("matmul.metal", "ushort BLOCK = 64 + 8;");
    says("matmul.metal", "matmul<format, 8>");
    says("attention.metal", "ushort ATTENTION_SIMDS = 4;");
    says("attention.metal", "ushort QUERIES = 4;");
    says("attention_tile.metal", "ushort TILE_QUERIES = LANES;");
    says("attention_tile.metal", "ushort POSITIONS = 16;");
    says("attention_tile.metal", "ushort MATRICES = 16;");
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

#[test]
fn one_source_holds_every_part_once() {
    let text = super::source();
    for (path, part) in SOURCES {
        let own =
            |line: &&str| !line.starts_with("#include \"") && *line != "#pragma once" && line.len() > 40;
        for line in part.lines().filter(own) {
            assert!(text.contains(line), "{path}: {line}");
        }
    }
    assert!(!text.contains("#include \"") && !text.contains("#pragma once"));
    assert_eq!(text.matches("#include <metal_stdlib>").count(), 1);
    assert_eq!(text.matches("struct q4_k {").count(), 1);
}

/// A source's code, without comments and text.
fn code(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap().trim_end().to_owned() + "\n").collect()
}

fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

#[test]
fn sources_keep_to_what_the_language_has() {
    // What C++ has and Metal has not, or only some of its versions.
    let forbidden = [
        "double",
        "goto",
        "asm",
        "new",
        "delete",
        "virtual",
        "try",
        "catch",
        "throw",
        "dynamic_cast",
        "typeid",
        "std",
        "thread_local",
        "wchar_t",
        "bfloat",
        "static_cast",
        "malloc",
        "printf",
        "auto",
        "__attribute__",
        "noexcept",
        "public",
        "private",
        "register",
        "union",
    ];
    for (path, text) in SOURCES {
        let code = code(text);
        let found: Vec<_> = words(&code).filter(|word| forbidden.contains(word)).collect();
        assert!(found.is_empty(), "{path}: {found:?}");
        assert!(!code.contains("(*"), "{path}: a pointer to a function, or what looks like one");
        // All threadgroup memory is an argument, whose size the launch says.
        for line in code.lines().filter(|line| line.contains("threadgroup ")) {
            let declared = line.split("threadgroup ").nth(1).unwrap().split(['=', ';', ',']).next().unwrap();
            let declared = declared.split("[[").next().unwrap();
            assert!(!declared.contains('['), "{path}: memory of the threadgroup's own: {line}");
        }
        // Matrices: only the kind that every one of Apple's GPUs since the M1 has.
        let matrices = words(&code).filter(|word| word.starts_with("simdgroup_") && word.contains("x8"));
        for matrix in matrices {
            assert!(matches!(matrix, "simdgroup_float8x8" | "simdgroup_half8x8"), "{path}: {matrix}");
        }
    }
}

#[test]
fn every_pointer_says_of_which_memory_it_is() {
    for (path, text) in SOURCES {
        let code = code(text).replace("\\\n", " ").replace('\n', " ");
        let bytes = code.as_bytes();
        for at in 1..bytes.len().saturating_sub(1) {
            // `type *name` and `type &name`; a product has a space behind its star.
            let points = matches!(bytes[at], b'*' | b'&')
                && bytes[at - 1] == b' '
                && bytes[at + 1].is_ascii_alphabetic();
            let before = code[..at].trim_end();
            if !points || !before.ends_with(|c: char| c.is_alphanumeric() || c == '_') {
                continue;
            }
            let start = before.rfind([',', ';', '(', '{', '}', ')']).map_or(0, |start| start + 1);
            let declaration = &before[start..];
            let said = words(declaration)
                .any(|word| matches!(word, "device" | "constant" | "threadgroup" | "thread"));
            assert!(said, "{path}: {declaration} {}", &code[at..(at + 20).min(code.len())]);
        }
    }
}

#[test]
fn no_function_calls_itself() {
    // Nothing is declared before its body, so only itself could a function call before it is complete.
    let mut functions = 0;
    for (path, text) in SOURCES {
        let code = code(text);
        for (at, line) in code.lines().map(|line| (line.as_ptr() as usize - code.as_ptr() as usize, line)) {
            let start = line.trim_start();
            if !["inline ", "kernel ", "static "].iter().any(|word| start.starts_with(word))
                || !line.contains('(')
            {
                continue;
            }
            let name = words(line.split('(').next().unwrap()).last().unwrap();
            let end = format!("\n{}}}\n", &line[..line.len() - start.len()]);
            let (_, body) = code[at..].split(end.as_str()).next().unwrap().split_once("{\n").unwrap();
            let own = |(at, _): (usize, &str)| {
                !body[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':')
            };
            assert!(!body.match_indices(&format!("{name}(")).any(own), "{path}: {name} calls itself");
            functions += 1;
        }
    }
    assert!(functions > 80, "{functions} functions found");
}

#[test]
fn kernels_number_their_buffers_in_the_order_of_their_arguments() {
    let mut kernels = 0;
    for (path, text) in SOURCES.iter().filter(|(path, _)| path.ends_with(".metal")) {
        let code = code(text);
        for part in code.split("kernel void ").skip(1) {
            let arguments = part.split(") {").next().unwrap();
            let numbers: Vec<usize> = arguments
                .split("[[buffer(")
                .skip(1)
                .map(|rest| rest.split(')').next().unwrap().parse().unwrap())
                .collect();
            assert_eq!(numbers, (0..numbers.len()).collect::<Vec<_>>(), "{path}: {arguments}");
            assert!(arguments.trim_end().ends_with("GRID"), "{path}: {arguments}");
            kernels += 1;
        }
    }
    assert_eq!(kernels, 25, "kernels and templates of them");
}
