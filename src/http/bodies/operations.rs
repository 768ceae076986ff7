//! What the operations of a batch look like: the members of the single call, and those which that has in its path.

use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, Ref, RefOr, Schema, schema::Type},
};

use super::{Debit, Empty, Extend, Reserve, Settle};

/// The members that stand beside those of a body that has the id of the reservation, if there is one.
const NAMED: [&str; 2] = ["op", "user_id"];
/// The members that stand beside those of a body without an id: there the path has it.
const NAMED_WITH_ID: [&str; 3] = ["op", "user_id", "id"];

/// Declares an operation by its verb, what is added to the body of its single call, and that body.
macro_rules! operation {
    ($(#[doc = $about:literal])+ $name:ident = $verb:literal, $named:ident, $body:ident;) => {
        $(#[doc = $about])+
        pub struct $name;

        impl $name {
            /// The word that stands in `op`.
            pub const OP: &'static str = $verb;
            /// The names of all members.
            pub const MEMBERS: [&'static str; $named.len() + $body::MEMBERS.len()] =
                joined($named, $body::MEMBERS);
        }

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                operation($verb, concat!($($about),+).trim(), $body::schema())
            }
        }

        impl ToSchema for $name {
            fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
                $body::schemas(schemas);
            }
        }
    };
}

operation! {
    /// As `POST /v1/users/{id}/reservations`.
    ReserveOperation = "reserve", NAMED, Reserve;
}

operation! {
    /// As `POST /v1/users/{id}/reservations/{rid}/settle`.
    SettleOperation = "settle", NAMED_WITH_ID, Settle;
}

operation! {
    /// As `POST /v1/users/{id}/reservations/{rid}/release`.
    ReleaseOperation = "release", NAMED_WITH_ID, Empty;
}

operation! {
    /// As `POST /v1/users/{id}/reservations/{rid}/extend`.
    ExtendOperation = "extend", NAMED_WITH_ID, Extend;
}

operation! {
    /// As `POST /v1/users/{id}/debits`.
    DebitOperation = "debit", NAMED, Debit;
}

/// One of the verbs, as `op` says.
#[derive(ToSchema)]
#[serde(untagged)]
#[schema(discriminator(property_name = "op", mapping(
    ("reserve" = "#/components/schemas/ReserveOperation"),
    ("settle" = "#/components/schemas/SettleOperation"),
    ("release" = "#/components/schemas/ReleaseOperation"),
    ("extend" = "#/components/schemas/ExtendOperation"),
    ("debit" = "#/components/schemas/DebitOperation"),
)))]
#[expect(dead_code, reason = "describes an element of a body, and is never made")]
pub enum BatchOperation {
    Reserve(ReserveOperation),
    Settle(SettleOperation),
    Release(ReleaseOperation),
    Extend(ExtendOperation),
    Debit(DebitOperation),
}

/// One list after the other; `N` is the length of both.
const fn joined<const A: usize, const B: usize, const N: usize>(
    first: [&'static str; A],
    second: [&'static str; B],
) -> [&'static str; N] {
    assert!(A + B == N, "the lengths add up");
    let (mut all, mut i) = ([""; N], 0);
    while i < N {
        all[i] = if i < A { first[i] } else { second[i - A] };
        i += 1;
    }
    all
}

/// The body of the single call with the members that are added. Only a reserve may go without an id; there is no header
/// to name it in.
fn operation(verb: &str, about: &str, single: RefOr<Schema>) -> RefOr<Schema> {
    let RefOr::T(Schema::Object(mut object)) = single else { return single };
    let word = ObjectBuilder::new().schema_type(Type::String).enum_values(Some([verb]));
    // What is added stands first, and instead of what the single call says of its id.
    let of_single = std::mem::take(&mut object.properties);
    object.properties.insert("op".into(), word.into());
    for (name, kind) in [("user_id", "UserId"), ("id", "ReservationId")] {
        object.properties.insert(name.into(), RefOr::Ref(Ref::from_schema_name(kind)));
    }
    for (name, property) in of_single {
        object.properties.entry(name).or_insert(property);
    }
    let always = if verb == ReserveOperation::OP { &NAMED[..] } else { &NAMED_WITH_ID[..] };
    let required = always.iter().map(|name| (*name).to_owned());
    object.required = required.chain(std::mem::take(&mut object.required)).collect();
    object.min_properties = object.min_properties.map(|least| least + always.len());
    object.description = Some(about.into());
    object.into()
}
