//! One JSON value to the fields that pointers name, in one pass that stores nothing else.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{Row, Scalar};
use crate::spec::SpecFault;

/// The pointers of a specification as a tree over their tokens, so that one pass over a JSON text
/// visits the named fields and nothing else. (A `serde_json::Value` would store the whole record.)
#[derive(Debug, Clone)]
pub(crate) struct PointerTree {
    nodes: Vec<PointerNode>,
}

#[derive(Debug, Clone, Default)]
struct PointerNode {
    /// Next token and the node it leads to.
    children: Vec<(String, usize)>,
    /// Features whose pointer ends here.
    features: Vec<usize>,
}

impl Default for PointerTree {
    fn default() -> Self {
        Self { nodes: vec![PointerNode::default()] }
    }
}

/// Deepest pointer; serde_json itself stops at 128 levels.
const MAX_POINTER_DEPTH: usize = 100;

impl PointerTree {
    /// Adds a feature's pointer.
    pub(super) fn insert(&mut self, pointer: &str, feature: usize) -> Result<(), SpecFault> {
        let bad = |reason| SpecFault::Pointer { pointer: pointer.to_owned(), reason };
        let tokens = match pointer.strip_prefix('/') {
            Some(rest) => rest.split('/'),
            None => return Err(bad("it starts with '/', as in \"/request/duration_ms\"")),
        };
        let mut node = 0;
        for (depth, token) in tokens.enumerate() {
            if depth == MAX_POINTER_DEPTH {
                return Err(bad("it is more than 100 levels deep"));
            }
            if token.replace("~0", "").replace("~1", "").contains('~') {
                return Err(bad("'~' is written ~0 and '/' inside a name ~1"));
            }
            let token = token.replace("~1", "/").replace("~0", "~");
            let next = self.nodes.len();
            let children = &mut self.nodes[node].children;
            node = match children.iter().find(|(known, _)| *known == token) {
                Some(&(_, child)) => child,
                None => {
                    children.push((token, next));
                    self.nodes.push(PointerNode::default());
                    next
                }
            };
        }
        self.nodes[node].features.push(feature);
        Ok(())
    }

    /// Reads a JSON text; every value that a pointer leads to is set in the row.
    pub(super) fn read(&self, text: &str, row: &mut Row<'_>) -> Result<(), serde_json::Error> {
        let mut reader = serde_json::Deserializer::from_str(text);
        NodeSeed { tree: self, node: 0, row }.deserialize(&mut reader)?;
        reader.end()
    }

    fn child(&self, node: usize, token: &str) -> Option<usize> {
        let children = &self.nodes[node].children;
        children.iter().find(|(known, _)| known == token).map(|&(_, child)| child)
    }
}

/// Reads one JSON value at a node of the tree.
struct NodeSeed<'t, 'r, 's> {
    tree: &'t PointerTree,
    node: usize,
    row: &'r mut Row<'s>,
}

impl NodeSeed<'_, '_, '_> {
    fn set(&mut self, scalar: impl Fn() -> Scalar<'static>) {
        for &feature in &self.tree.nodes[self.node].features {
            self.row.set(feature, scalar());
        }
    }
}

impl<'de> DeserializeSeed<'de> for NodeSeed<'_, '_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for NodeSeed<'_, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(mut self) -> Result<(), E> {
        self.set(|| Scalar::Null);
        Ok(())
    }

    fn visit_bool<E>(mut self, flag: bool) -> Result<(), E> {
        self.set(|| Scalar::Bool(flag));
        Ok(())
    }

    fn visit_u64<E>(mut self, number: u64) -> Result<(), E> {
        self.set(|| Scalar::Unsigned(number));
        Ok(())
    }

    fn visit_i64<E>(mut self, number: i64) -> Result<(), E> {
        self.set(|| Scalar::Signed(number));
        Ok(())
    }

    fn visit_f64<E>(mut self, number: f64) -> Result<(), E> {
        self.set(|| Scalar::Float(number));
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        for &feature in &self.tree.nodes[self.node].features {
            self.row.set(feature, Scalar::Text(text));
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        self.set(|| Scalar::Structure);
        for index in 0_usize.. {
            let child = match self.tree.nodes[self.node].children.is_empty() {
                true => None,
                false => self.tree.child(self.node, &index.to_string()),
            };
            let more = match child {
                Some(node) => items
                    .next_element_seed(NodeSeed { tree: self.tree, node, row: self.row })?
                    .is_some(),
                None => items.next_element::<IgnoredAny>()?.is_some(),
            };
            if !more {
                break;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut entries: A) -> Result<(), A::Error> {
        self.set(|| Scalar::Structure);
        while let Some(child) =
            entries.next_key_seed(KeySeed { tree: self.tree, node: self.node })?
        {
            match child {
                Some(node) => {
                    entries.next_value_seed(NodeSeed { tree: self.tree, node, row: self.row })?;
                }
                None => {
                    entries.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// Reads an object's key as the child node it leads to, without storing it.
struct KeySeed<'t> {
    tree: &'t PointerTree,
    node: usize,
}

impl<'de> DeserializeSeed<'de> for KeySeed<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeySeed<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.tree.child(self.node, key))
    }
}
