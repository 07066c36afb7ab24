//! Tests of the key types: what is refused, what is printed, what agrees.

use super::{KeyError, LOW_ORDER, PresharedKey, PrivateKey, PublicKey, Secret};
use crate::crypto::test_entropy::Fixed;
use base64::{Engine, engine::general_purpose::STANDARD};

fn public(bytes: [u8; 32]) -> Result<PublicKey, KeyError> {
    PublicKey::from_bytes(bytes)
}

#[test]
fn a_key_pair_of_rfc_7748_agrees() {
    let alice = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=".parse::<PrivateKey>().unwrap();
    let bob = "XasIfmJKikt54X+Lg4AO5m87sSkmGLb9HC+LJ/+I4Os=".parse::<PrivateKey>().unwrap();
    assert_eq!(alice.public().to_string(), "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=");
    let shared = alice.agree(&bob.public()).unwrap();
    assert!(shared.same(&bob.agree(&alice.public()).unwrap()));
    assert_eq!(STANDARD.encode(shared.expose()), "Sl2dW6TOLeFyjjv0gDUPJeB+IclH0Z4zdvCbPB4WF0I=");
}

#[test]
fn keys_read_back_what_they_print() {
    let private = PrivateKey::generate(&mut Fixed::new(1));
    let again: PrivateKey = private.to_text().parse().unwrap();
    assert_eq!(again.public(), private.public());
    assert_eq!(private.public().to_string().parse(), Ok(private.public()));
    let psk = PresharedKey::generate(&mut Fixed::new(2));
    let again: PresharedKey = psk.to_text().parse().unwrap();
    assert_eq!(again.expose(), psk.expose());
}

#[test]
fn text_that_is_no_key_says_why() {
    assert_eq!("not base64!".parse::<PublicKey>(), Err(KeyError::NotBase64));
    assert_eq!(STANDARD.encode([7; 31]).parse::<PublicKey>(), Err(KeyError::Length(31)));
    assert_eq!(STANDARD.encode([7; 33]).parse::<PublicKey>(), Err(KeyError::Length(33)));
    assert_eq!(STANDARD.encode([0; 32]).parse::<PrivateKey>().err(), Some(KeyError::Zero));
    assert_eq!(STANDARD.encode([0; 32]).parse::<PresharedKey>().err(), Some(KeyError::Zero));
    // The last character of 44 carries two bits too many; a second text for the same key is refused.
    let mut text = STANDARD.encode([7; 32]);
    text.replace_range(42..43, "d");
    assert_eq!(text.parse::<PublicKey>(), Err(KeyError::NotBase64));
}

#[test]
fn every_low_order_point_is_refused() {
    for point in LOW_ORDER {
        assert_eq!(public(point), Err(KeyError::LowOrder));
    }
}

#[test]
fn a_point_of_low_order_is_refused_by_its_result_even_if_the_list_forgot_it() {
    let private = PrivateKey::generate(&mut Fixed::new(1));
    for point in LOW_ORDER {
        assert_eq!(private.agree(&PublicKey(point)).err(), Some(KeyError::LowOrder));
    }
}

#[test]
fn a_number_of_the_prime_or_more_is_refused_and_the_one_below_is_not_called_so() {
    let mut bytes = super::FIELD_PRIME;
    assert_eq!(public(bytes), Err(KeyError::NonCanonical));
    bytes[0] += 1;
    assert_eq!(public(bytes), Err(KeyError::NonCanonical));
    bytes[0] = 0xeb;
    assert!(public(bytes).is_ok());
    let mut high_bit = *PrivateKey::generate(&mut Fixed::new(1)).public().as_bytes();
    high_bit[31] |= 0x80;
    assert_eq!(public(high_bit), Err(KeyError::NonCanonical));
}

#[test]
fn nothing_secret_is_printed() {
    let private = PrivateKey::generate(&mut Fixed::new(1));
    let psk = PresharedKey::generate(&mut Fixed::new(2));
    let secret = Secret::<4>::take(&mut [1, 2, 3, 4]);
    assert_eq!(format!("{private:?} {psk:?} {secret:?}"), "PrivateKey(..) PresharedKey(..) Secret(..)");
}

#[test]
fn taking_a_secret_wipes_where_it_came_from() {
    let mut bytes = [7; 32];
    let secret = Secret::take(&mut bytes);
    assert_eq!(bytes, [0; 32]);
    assert_eq!(secret.expose(), &[7; 32]);
}
