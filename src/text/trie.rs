//! A read-only prefix tree over byte strings.

/// The node that every walk begins at.
pub(super) const ROOT: u32 = 0;

/// A prefix tree in two flat tables; the children of a node lie side by side in order of their bytes.
pub(super) struct Trie {
    nodes: Vec<Node>,
    /// The byte that leads to each node.
    labels: Vec<u8>,
}

#[derive(Clone, Copy)]
struct Node {
    first_child: u32,
    children: u16,
    value: Option<u32>,
}

impl Trie {
    /// Builds the tree; where a key occurs twice, the later value stays.
    pub fn new<'a>(entries: impl Iterator<Item = (&'a [u8], u32)>) -> Trie {
        let mut entries: Vec<_> = entries.collect();
        entries.sort_by_key(|&(key, _)| key); // stable: later duplicates stay behind earlier ones
        let mut trie = Trie { nodes: Vec::new(), labels: Vec::new() };
        trie.push(0);
        // Breadth first, so that siblings become neighbours: node, its entries, length of its prefix.
        let mut queue = std::collections::VecDeque::from([(ROOT, entries.as_slice(), 0)]);
        while let Some((node, mut entries, depth)) = queue.pop_front() {
            let mut value = None;
            while let Some((&(key, id), rest)) = entries.split_first()
                && key.len() == depth
            {
                (value, entries) = (Some(id), rest);
            }
            let first_child = trie.nodes.len() as u32;
            while let Some(&byte) = entries.first().and_then(|(key, _)| key.get(depth)) {
                let same = entries.partition_point(|(key, _)| key.get(depth) == Some(&byte));
                let (group, rest) = entries.split_at(same);
                queue.push_back((trie.push(byte), group, depth + 1));
                entries = rest;
            }
            if let Some(entry) = trie.nodes.get_mut(node as usize) {
                let children = trie.labels.len() as u32 - first_child;
                *entry = Node { first_child, children: children as u16, value };
            }
        }
        trie
    }

    fn push(&mut self, label: u8) -> u32 {
        self.nodes.push(Node { first_child: 0, children: 0, value: None });
        self.labels.push(label);
        self.nodes.len() as u32 - 1
    }

    /// The node that `byte` leads to from `node`.
    #[inline]
    pub fn child(&self, node: u32, byte: u8) -> Option<u32> {
        let node = self.nodes.get(node as usize)?;
        let first = node.first_child as usize;
        let labels = self.labels.get(first..first + usize::from(node.children))?;
        let at = if labels.len() <= 8 {
            labels.iter().position(|&label| label == byte)?
        } else {
            labels.binary_search(&byte).ok()?
        };
        Some((first + at) as u32)
    }

    /// What was stored under the key that ends at `node`.
    #[inline]
    pub fn value(&self, node: u32) -> Option<u32> {
        self.nodes.get(node as usize)?.value
    }

    /// Every key that `text` begins with, shortest first: its length and value.
    pub fn prefixes(&self, text: &[u8]) -> impl Iterator<Item = (usize, u32)> {
        let mut node = ROOT;
        text.iter()
            .map_while(move |&byte| {
                node = self.child(node, byte)?;
                Some(self.value(node))
            })
            .enumerate()
            .filter_map(|(i, value)| Some((i + 1, value?)))
    }

    /// The longest key that `text` begins with.
    pub fn longest(&self, text: &[u8]) -> Option<(usize, u32)> {
        self.prefixes(text).last()
    }

    /// How many bytes of `text` some key begins with, whether or not a key ends there.
    pub fn common_prefix(&self, text: &[u8]) -> usize {
        let mut node = ROOT;
        text.iter()
            .map_while(|&byte| {
                node = self.child(node, byte)?;
                Some(node)
            })
            .count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walks() {
        let keys: [(&[u8], u32); 6] = [(b"abc", 1), (b"a", 2), (b"abd", 3), (b"b", 4), (b"", 5), (b"a", 6)];
        let trie = Trie::new(keys.into_iter());
        assert_eq!(trie.prefixes(b"abdx").collect::<Vec<_>>(), [(1, 6), (3, 3)]);
        assert_eq!(trie.longest(b"abx"), Some((1, 6)));
        assert_eq!(trie.longest(b"xa"), None);
        assert_eq!(trie.common_prefix(b"abx"), 2);
        assert_eq!(trie.value(ROOT), Some(5));
        let wide = Trie::new((0..=255u32).map(|b| (&ALL[b as usize..][..1], b)));
        assert!((0..=255).all(|b| wide.longest(&[b, 7]) == Some((1, u32::from(b)))));
    }

    const ALL: [u8; 256] = {
        let mut all = [0; 256];
        let mut i = 0;
        while i < 256 {
            all[i] = i as u8;
            i += 1;
        }
        all
    };
}
