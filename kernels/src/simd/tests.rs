//! Words on random and extreme input: every level gives the scalar level's bytes.

use super::*;
use crate::dispatch::Task;
use crate::quant::grids;

/// The words that move bytes, on one input.
#[derive(Clone, Copy)]
struct Words {
    a: [u8; 32],
    b: [u8; 32],
    mask: u32,
}

impl Task for Words {
    type Output = Vec<(&'static str, [u8; 32])>;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> Self::Output {
        let (a, b, mask) = (isa.bytes(&self.a), isa.bytes(&self.b), isa.spread_bits(self.mask));
        let signed = self.b.map(|b| (b as i8).max(-127));
        let table: [i8; 16] = core::array::from_fn(|i| self.a[i] as i8);
        // Rows of tables, some behind their ends, which begin again there.
        let at: [usize; 4] = core::array::from_fn(|i| self.b[i].into());
        let eight = core::array::from_fn(|i| self.b[i].into());
        let shorts: [u64; 2] = [0, 1].map(|i| u64::from_le_bytes(self.b.as_chunks().0[i]));
        let fours: [[u8; 8]; 8] = bytemuck::cast([self.a, self.b]);
        let words = [
            ("nibbles", isa.nibbles(&self.a.as_chunks().0[0])),
            ("quarters", isa.quarters(&self.a.as_chunks().0[3])),
            ("eights", isa.eights(bytemuck::cast_ref::<_, [_; 4]>(&self.a), at)),
            ("fours", isa.fours(bytemuck::cast_ref::<_, [_; 8]>(&self.a), eight)),
            ("eights_of_bytes", isa.eights_of_bytes(&grids::IQ2_XXS, [self.mask, self.mask >> 8])),
            ("fours_of_bytes", isa.fours_of_bytes(&grids::IQ3_XXS, [self.mask, !self.mask])),
            ("eights_of_shorts", isa.eights_of_shorts(&grids::IQ2_XS, shorts[0])),
            ("fours_of_shorts", isa.fours_of_shorts(&grids::IQ3_S, shorts)),
            ("second_fours", isa.second_fours(&fours)),
            ("second_bytes", isa.second_bytes(bytemuck::cast_ref(&fours))),
            ("sevens", isa.sevens(a)),
            ("twice", isa.twice(&self.b.as_chunks().0[1])),
            ("splat_four", isa.splat_four(self.b.as_chunks().0[2])),
            ("splat_byte", isa.splat_byte(self.a[5])),
            ("field 0", isa.field::<0, 0x10>(a)),
            ("field 3", isa.field::<3, 0x1f>(a)),
            ("field 7", isa.field::<7, 0x01>(a)),
            ("raise", isa.raise::<4>(isa.field::<0, 0x0f>(a))),
            ("fields_of_halves up", isa.fields_of_halves::<-1, 0, 0x10>(a)),
            ("fields_of_halves down", isa.fields_of_halves::<1, 2, 0x10>(a)),
            ("or", isa.or(a, b)),
            ("and", isa.and(a, b)),
            ("add_bytes", isa.add_bytes(a, b)),
            ("sub_bytes", isa.sub_bytes(a, b)),
            ("mean_bytes", isa.mean_bytes(a, b)),
            ("spread_bytes", isa.spread_bytes(self.mask)),
            ("negate", isa.negate(a, mask)),
            ("negate_where", isa.negate_where(a, self.mask)),
            ("spread_bits", mask),
            ("cross_bits", isa.cross_bits(a)),
            ("negate_part 0", isa.negate_part::<0>(a, isa.for_parts(b))),
            ("negate_part 3", isa.negate_part::<3>(a, isa.for_parts(b))),
            ("negate_part 6", isa.negate_part::<6>(a, isa.for_parts(b))),
            ("add_to_part 1", isa.add_to_part::<1>(a, isa.for_parts(b))),
            ("add_to_part 6", isa.add_to_part::<6>(b, isa.for_parts(a))),
            ("load_negated 0", isa.load_negated::<0>(&[signed; 8], isa.for_parts(a))),
            ("load_negated 5", isa.load_negated::<5>(&[signed; 8], isa.for_parts(a))),
            ("lookup", isa.lookup(&table, isa.field::<4, 0x0f>(b))),
            ("lower bytes", isa.split_sixteens([a, b])[0]),
            ("upper bytes", isa.split_sixteens([a, b])[1]),
        ];
        let mut out = vec![];
        for (name, word) in words {
            let mut bytes = [0; 32];
            isa.store_bytes(word, &mut bytes);
            out.push((name, bytes));
        }
        let small = isa.field::<0, 0x0f>(a);
        // Blocks of eighteen bytes whose halves are all finite.
        let blocks: [u8; 144] = core::array::from_fn(|i| self.a[i % 32] & 0xbf);
        let head = self.a.first_chunk().unwrap_or(&[0; 8]);
        let sums = isa.sum_products(&[[small, isa.field::<4, 0x0f>(a)]; 4], [[&signed; 2]; 4]);
        for (name, word) in [
            ("sum_products", isa.to_floats(sums)),
            ("odd_uppermost 1", isa.to_floats(first_of_pairs(isa, isa.pick::<1>(isa.odd_uppermost(a))))),
            ("odd_uppermost 3", isa.to_floats(first_of_pairs(isa, isa.pick::<3>(isa.odd_uppermost(a))))),
            ("eight_scales", isa.to_floats(first_of_pairs(isa, isa.pick::<2>(isa.eight_scales(head))))),
            ("halves_of_blocks 0", isa.halves_of_blocks(&blocks, 0)),
            ("halves_of_blocks 16", isa.halves_of_blocks(&blocks, 16)),
        ] {
            let mut floats = [0.0; 8];
            isa.store(word, &mut floats);
            out.push((name, bytemuck::cast(floats)));
        }
        out
    }
}

/// Every second of sixteen integers.
#[inline(always)]
fn first_of_pairs<I: Isa>(isa: I, shorts: I::Shorts) -> I::Ints {
    isa.add_dot_shorts(isa.zero_ints(), shorts, isa.splat_pair([1, 0]))
}

#[test]
fn bytes_are_the_same_at_every_level() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u32
    };
    let mut inputs = vec![];
    for byte in [0x00, 0x01, 0x7f, 0x80, 0x81, 0xff] {
        for mask in [0, !0, 1, 1 << 31, 0x8000_8001] {
            inputs.push(Words { a: [byte; 32], b: [byte.wrapping_mul(0x7f); 32], mask });
        }
    }
    for _ in 0..1000 {
        inputs.push(Words {
            a: core::array::from_fn(|_| random() as u8),
            b: core::array::from_fn(|_| random() as u8),
            mask: random(),
        });
    }
    for words in inputs {
        for level in Level::available() {
            assert_eq!(level.run(words), Level::SCALAR.run(words), "{level}");
        }
    }
}

#[test]
fn words_mean_what_they_say() {
    let a: [u8; 32] = core::array::from_fn(|i| 8 * i as u8);
    let words = Level::SCALAR.run(Words { a, b: [0x81; 32], mask: 0b10 });
    let find = |name| words.iter().find(|(found, _)| *found == name).unwrap().1;
    // Bytes 24 to 31 are 192 to 248: 0b11_00_00_00, 0b11_00_10_00, ...
    assert_eq!(find("quarters")[..8], [0, 0, 0, 3, 0, 2, 0, 3]);
    // All indices are 0x81: row 1.
    assert_eq!(find("eights")[8..16], a[8..16]);
    assert_eq!(find("fours")[20..24], a[4..8]);
    // The mask's bytes are 2, 0, 0, 0, of its shift all 0; its complement's 0xfd, 0xff, 0xff, 0xff. All shorts are 0x8181.
    assert_eq!(
        find("eights_of_bytes")[..],
        [2, 0, 0, 0].map(|i| grids::IQ2_XXS[i].map(|w| w as u8)).concat()
    );
    let fours = [2, 0, 0, 0, 0xfd, 0xff, 0xff, 0xff].map(|i| grids::IQ3_XXS[i].map(|w| w as u8));
    assert_eq!(find("fours_of_bytes")[..], fours.concat());
    assert_eq!(find("eights_of_shorts")[8..16], grids::IQ2_XS[0x181].map(|w| w as u8));
    assert_eq!(find("fours_of_shorts")[20..24], grids::IQ3_S[0x181].map(|w| w as u8));
    assert_eq!(find("second_fours")[..8], [32, 40, 48, 56, 96, 104, 112, 120]);
    assert_eq!(find("second_bytes")[..4], [8, 24, 40, 56]);
    assert_eq!((find("lower bytes")[..3].to_vec(), find("lower bytes")[16]), (vec![0, 16, 32], 0x81));
    assert_eq!((find("upper bytes")[..3].to_vec(), find("upper bytes")[16]), (vec![8, 24, 40], 0x81));
    // 0x18100800 in sevens: 0x00, 0x10, 0x40, 0xc0 & 0x7f ...
    assert_eq!(find("sevens")[..4], [0x00, 0x10, 0x40, 0x40]);
    assert_eq!(find("negate_where"), find("negate"));
    assert_eq!(find("add_bytes")[..3], [0x81, 0x89, 0x91]);
    assert_eq!(find("add_bytes")[31], 0x79);
    assert_eq!(find("sub_bytes")[16..19], [0, 7, 15]);
    assert_eq!(find("mean_bytes")[..3], [65, 69, 73]);
    assert_eq!(find("spread_bytes")[..9], [2, 2, 2, 2, 2, 2, 2, 2, 0]);
    // Bits 3 and 4 of bytes 1 and 18, bits 5 and 6 of bytes 4 and 24.
    assert_eq!((find("fields_of_halves up")[1], find("fields_of_halves up")[18]), (0x10, 0x10));
    assert_eq!((find("fields_of_halves down")[4], find("fields_of_halves down")[24]), (0x10, 0x10));
    assert_eq!(find("cross_bits")[8..16], [64, 72, 96, 104, 80, 88, 112, 120]);
    assert_eq!(find("negate")[..4], [0, 0xf8, 16, 24]);
    // Bytes 24 to 27 of the other, 192 to 216, each added to eight.
    assert_eq!(find("add_to_part 6")[6..10], [0x41, 0x41, 0x49, 0x49]);
    // Bits 0 and 7 of each byte of the signs.
    assert_eq!(find("negate_part 3")[8..16], [192, 72, 80, 88, 96, 104, 112, 136]);
    let halves_of = |name| {
        let [a, _, _, b, c, _, _, d] = bytemuck::cast::<_, [f32; 8]>(find(name));
        [a, b, c, d]
    };
    // The uppermost nibbles of bytes 11 and 15, 27 and 31: 5 and 7, 13 and 15.
    assert_eq!(halves_of("odd_uppermost 1"), [11.0, 11.0, 15.0, 15.0]);
    assert_eq!(halves_of("odd_uppermost 3"), [27.0, 27.0, 31.0, 31.0]);
    // Scales 4 and 5: both nibbles of byte 6 (0x30), above them bits 8 to 11 of 0x1810.
    assert_eq!(halves_of("eight_scales"), [-32.0, -32.0, 3.0, 3.0]);
    // Sixteen low nibbles, 0 and 8 by turns, and the high ones, twice 0 to 7 (or 8 to 15), times -127.
    let sums: [f32; 8] = bytemuck::cast(find("sum_products"));
    assert_eq!(sums, [[-127.0 * 120.0; 4], [-127.0 * 248.0; 4]].as_flattened());
    // Bytes 18 and 19 are 18 * 8 = 0x90 and 0x98; bytes 34 and 35 those of 2 and 3.
    let halves = |name| bytemuck::cast::<_, [f32; 8]>(find(name))[1];
    assert_eq!(halves("halves_of_blocks 0"), half::f16::from_bits(0x9890).to_f32());
    assert_eq!(halves("halves_of_blocks 16"), half::f16::from_bits(0x1810).to_f32());
}

/// Emulators set the variable: what they run must not fall back silently.
#[test]
fn the_levels_are_those_that_are_expected() {
    let found: Vec<_> = Level::available().map(Level::name).collect();
    let found = found.join(",");
    if let Ok(expected) = std::env::var("GRISTMILL_LEVELS") {
        assert_eq!(found, expected);
    }
    for level in Level::available() {
        assert!(Level::NAMES.contains(&level.name()), "{level}");
        assert_eq!(Level::named(level.name()), Some(level));
    }
}
