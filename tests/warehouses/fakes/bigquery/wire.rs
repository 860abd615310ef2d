//! Protobuf's wire format, as much as the Storage Read API needs.

/// A message being written.
#[derive(Default)]
pub struct Writer(pub Vec<u8>);

impl Writer {
    fn varint(&mut self, mut value: u64) {
        while value > 0x7f {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    pub fn number(mut self, field: u64, value: u64) -> Self {
        self.varint(field << 3);
        self.varint(value);
        self
    }

    pub fn bytes(mut self, field: u64, value: &[u8]) -> Self {
        self.varint(field << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    pub fn message(self, field: u64, value: Writer) -> Self {
        self.bytes(field, &value.0)
    }
}

fn varint(rest: &mut &[u8]) -> u64 {
    let (mut value, mut shift) = (0, 0);
    loop {
        let (first, after) = rest.split_first().expect("a whole number");
        *rest = after;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return value;
        }
        shift += 7;
    }
}

/// The bytes of a field, empty when it is absent.
pub fn bytes(message: &[u8], field: u64) -> &[u8] {
    let mut rest = message;
    while !rest.is_empty() {
        let key = varint(&mut rest);
        match key & 7 {
            0 => drop(varint(&mut rest)),
            2 => {
                let length = varint(&mut rest) as usize;
                let (value, after) = rest.split_at(length);
                rest = after;
                if key >> 3 == field {
                    return value;
                }
            }
            kind => panic!("wire type {kind}"),
        }
    }
    &[]
}

/// The number in a field, 0 when it is absent.
pub fn number(message: &[u8], field: u64) -> u64 {
    let mut rest = message;
    while !rest.is_empty() {
        let key = varint(&mut rest);
        match key & 7 {
            0 => {
                let value = varint(&mut rest);
                if key >> 3 == field {
                    return value;
                }
            }
            2 => {
                let length = varint(&mut rest) as usize;
                rest = &rest[length..];
            }
            kind => panic!("wire type {kind}"),
        }
    }
    0
}

pub fn text(message: &[u8], field: u64) -> String {
    String::from_utf8(bytes(message, field).to_vec()).expect("UTF-8")
}
