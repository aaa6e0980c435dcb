//! The arguments of kernels: the same structs as in `metal/params.h`, field by field, and of the same size.

/// Arguments of a kernel: plain numbers of four bytes.
pub trait Params: bytemuck::Pod {
    /// The struct's name in `metal/params.h`.
    const NAME: &'static str;
    /// Its fields.
    const FIELDS: &'static [&'static str];
}

macro_rules! params {
    ($($(#[$doc:meta])* $name:ident = $other:literal, $size:literal { $($(#[$field_doc:meta])* $field:ident: $ty:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
        #[repr(C)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $ty,)*
        }

        impl Params for $name {
            const NAME: &'static str = $other;
            const FIELDS: &'static [&'static str] = &[$(concat!(stringify!($ty), " ", stringify!($field))),*];
        }

        const _: () = assert!(size_of::<$name>() == $size, "as for the GPU");
    )*

        /// Each struct's name in `metal/params.h`, its fields with their types, and its size.
        pub const ALL: &[(&str, &[&str], usize)] = &[$(($name::NAME, $name::FIELDS, $size)),*];
    };
}

params! {
    /// Products of a matrix of weights with rows of activations.
    ProductParams = "product_params", 32 {
        /// Inputs.
        len: u32,
        /// Outputs.
        rows: u32,
        /// Rows of activations.
        columns: u32,
        /// Bytes of a row of weights.
        row_bytes: u32,
        /// Rows of an expert in all.
        of: u32,
        /// The first of them that is taken.
        first: u32,
        /// Whether the matrix is that of experts.
        by_expert: u32,
        /// Whether there is a bias.
        has_bias: u32,
    }
    /// Rows of a table.
    LookupParams = "lookup_params", 16 {
        /// Values of a row.
        len: u32,
        /// Rows to be read.
        count: u32,
        /// Bytes of a row of the table.
        row_bytes: u32,
        /// Rows of the table.
        rows: u32,
    }
    /// Attention of some tokens.
    AttentionParams = "attention_params", 68 {
        /// Tokens of the pass.
        tokens: u32,
        /// Heads of queries.
        heads: u32,
        /// Heads of queries to a head of keys.
        group: u32,
        /// Values of a key.
        key_dim: u32,
        /// Values of a value.
        value_dim: u32,
        /// Values of a key with those that fill its row.
        key_len: u32,
        /// The same of a value.
        value_len: u32,
        /// Bytes of a row of keys.
        key_bytes: u32,
        /// The same of values.
        value_bytes: u32,
        /// Positions that the cache holds.
        capacity: u32,
        /// The position of the first token.
        position: u32,
        /// Positions of a part, a multiple of 32.
        part: u32,
        /// Parts.
        parts: u32,
        /// Whether scores fall with the distance.
        has_slopes: u32,
        /// Whether heads have sinks.
        has_sinks: u32,
        /// Factor of the scores.
        scale: f32,
        /// What scores are bent below; 0 where they are not.
        cap: f32,
    }
    /// Keys or values that are kept.
    KeepParams = "keep_params", 28 {
        /// Tokens of the pass.
        tokens: u32,
        /// Heads of keys.
        heads: u32,
        /// Values of a head.
        dim: u32,
        /// Values with those that fill the row.
        len: u32,
        /// Bytes of a row.
        row_bytes: u32,
        /// Positions that the cache holds.
        capacity: u32,
        /// The position of the first token.
        position: u32,
    }
    /// The norm of each row.
    NormParams = "norm_params", 12 {
        /// Values of a row.
        width: u32,
        /// Simdgroups of a threadgroup.
        simds: u32,
        /// What is added to the mean of squares; of `sparse`, how many standard deviations.
        eps: f32,
    }
    /// Rotary embedding.
    RopeParams = "rope_params", 20 {
        /// Tokens of the pass.
        tokens: u32,
        /// Values of a token's row.
        width: u32,
        /// Values of a head.
        head_dim: u32,
        /// Pairs that are turned in each head.
        pairs: u32,
        /// 1 where halves make the pairs, 0 where neighbours do.
        halves: u32,
    }
    /// A function of each value of a matrix.
    MapParams = "map_params", 20 {
        /// Rows of the matrix.
        rows: u32,
        /// Values of a row.
        width: u32,
        /// Which function.
        kind: u32,
        /// Whether a gate multiplies.
        has_up: u32,
        /// What the function needs.
        number: f32,
    }
    /// A rectangle of a matrix, copied or added to another.
    CopyParams = "copy_params", 32 {
        /// Rows of the rectangle.
        rows: u32,
        /// Its columns.
        width: u32,
        /// Values of a whole row of the source.
        from_row: u32,
        /// The rectangle's first column there.
        from: u32,
        /// Values of a whole row of the result.
        to_row: u32,
        /// The rectangle's first column there.
        to: u32,
        /// Factors of a row.
        stride: u32,
        /// Which of them.
        factor: u32,
    }
    /// The sums of each token's slots.
    CombineParams = "combine_params", 16 {
        /// Tokens of the pass.
        tokens: u32,
        /// Values of a row.
        width: u32,
        /// Slots of a token.
        per_token: u32,
        /// Whether slots have weights.
        weighted: u32,
    }
    /// The largest values of each row.
    TopKParams = "top_k_params", 28 {
        /// Rows.
        rows: u32,
        /// Values of a row.
        width: u32,
        /// How many are wanted.
        k: u32,
        /// Simdgroups of a threadgroup.
        simds: u32,
        /// Values of a part of a row.
        part: u32,
        /// Parts of a row.
        parts: u32,
        /// Whether values bring their places along.
        has_ids: u32,
    }
    /// The choice of experts.
    RouteParams = "route_params", 36 {
        /// Experts in all.
        experts: u32,
        /// Experts of a token, at most 32.
        used: u32,
        /// What is made of the scores.
        scoring: u32,
        /// Whether the weights of the chosen are made to sum to one.
        normalize: u32,
        /// Groups of experts.
        groups: u32,
        /// Groups that a token chooses from.
        used_groups: u32,
        /// Whether there is a bias.
        has_bias: u32,
        /// Whether experts have factors of their own.
        has_scales: u32,
        /// Factor of all weights.
        scale: f32,
    }
    /// Recurrences of matrices.
    RecurrenceParams = "recurrence_params", 28 {
        /// Tokens of the pass.
        tokens: u32,
        /// Heads of values, each with a state.
        heads: u32,
        /// Heads of keys and queries.
        key_heads: u32,
        /// Values of a key.
        key_dim: u32,
        /// Values of a value.
        value_dim: u32,
        /// Whether what the state gives for a key is taken off its value.
        delta: u32,
        /// Whether head `i` has key head `i % key_heads`; else neighbours share one.
        tiled: u32,
    }
    /// Channels with states of their own, or with some tokens before.
    ScanParams = "scan_params", 16 {
        /// Tokens of the pass.
        tokens: u32,
        /// Channels.
        channels: u32,
        /// States of a channel; of a convolution the tokens that it sees.
        states: u32,
        /// Whether there is a bias.
        has_bias: u32,
    }
}
