//! Proofs of identity and enrolment tokens.

use haar_protocol::number::NUMBER_MAX;
use haar_protocol::proof::{
    Audience, CLOCK_SKEW_MS, Claims, PROOF_LIFE_MS, ProofError, check, claimed_subject, make,
};
use haar_protocol::token::EnrolmentToken;
use proptest::prelude::*;

use crate::fixtures::{NOW_MS, key, node, site};
use crate::golden;

fn claims() -> Claims {
    Claims {
        audience: Audience::Relay,
        site: site(),
        subject: node(2).to_string(),
        issued_ms: NOW_MS,
        nonce: "000102030405060708090a0b0c0d0e0f".to_owned(),
        relay: None,
    }
}

fn check_at(proof: &str, now_ms: u64) -> Result<Claims, ProofError> {
    check(
        proof,
        &key(2).public(),
        Audience::Relay,
        &site(),
        node(2).as_str(),
        None,
        now_ms,
    )
}

fn token() -> EnrolmentToken {
    EnrolmentToken {
        url: "https://192.0.2.7:7420".to_owned(),
        site: site(),
        ca_sha256: "ab".repeat(32),
        secret: "cd".repeat(32),
        expires_ms: NOW_MS + 3_600_000,
    }
}

#[test]
fn a_proof_keeps_its_form_and_holds() {
    let proof = make(&claims(), &key(2));
    golden::check("proof.txt", &(proof.clone() + "\n"));
    assert_eq!(check_at(&proof, NOW_MS), Ok(claims()));
    assert_eq!(claimed_subject(&proof).as_deref(), Ok(node(2).as_str()));
}

#[test]
fn a_proof_with_any_bit_flipped_is_refused() {
    let proof = make(&claims(), &key(2));
    for bit in 0..proof.len() * 8 {
        let mut flipped = proof.clone().into_bytes();
        flipped[bit / 8] ^= 1 << (bit % 8);
        if let Ok(flipped) = String::from_utf8(flipped) {
            assert!(check_at(&flipped, NOW_MS).is_err(), "bit {bit}");
        }
    }
    for changed in [
        format!("{proof}A"),
        format!("{proof}="),
        format!("{proof} "),
        format!("{proof}."),
        format!(" {proof}"),
    ] {
        assert!(check_at(&changed, NOW_MS).is_err(), "{changed:?}");
    }
    for length in 0..proof.len() {
        assert!(
            check_at(&proof[..length], NOW_MS).is_err(),
            "{length} bytes"
        );
    }
}

#[test]
fn a_proof_convinces_only_the_audience_site_and_subject_that_it_names() {
    let proof = make(&claims(), &key(2));
    let (public, subject) = (key(2).public(), node(2).to_string());
    let other_site = haar_protocol::ids::SiteId::of(&key(9).public());
    let wrong = Err(ProofError::WrongClaims);
    assert_eq!(
        check(
            &proof,
            &public,
            Audience::Controller,
            &site(),
            &subject,
            None,
            NOW_MS
        ),
        wrong
    );
    assert_eq!(
        check(
            &proof,
            &public,
            Audience::Relay,
            &other_site,
            &subject,
            None,
            NOW_MS
        ),
        wrong
    );
    assert_eq!(
        check(
            &proof,
            &public,
            Audience::Relay,
            &site(),
            node(3).as_str(),
            None,
            NOW_MS
        ),
        wrong
    );
    let plant = "plant".parse().unwrap();
    let at = |relay| {
        let public = key(2).public();
        check(
            &proof,
            &public,
            Audience::Relay,
            &site(),
            &subject,
            relay,
            NOW_MS,
        )
    };
    assert_eq!(at(Some(&plant)), wrong);
    assert!(at(None).is_ok());
    let foreign = check(
        &proof,
        &key(3).public(),
        Audience::Relay,
        &site(),
        &subject,
        None,
        NOW_MS,
    );
    assert_eq!(foreign, Err(ProofError::WrongSignature));
}

#[test]
fn a_proof_out_of_its_time_says_how_far_the_clocks_are_apart() {
    let proof = make(&claims(), &key(2));
    let last = NOW_MS + PROOF_LIFE_MS + CLOCK_SKEW_MS;
    let first = NOW_MS - CLOCK_SKEW_MS;
    assert!(check_at(&proof, last).is_ok());
    assert!(check_at(&proof, first).is_ok());
    let behind = check_at(&proof, last + 1).unwrap_err();
    assert_eq!(behind, ProofError::OutOfTime { skew_ms: -180_001 });
    let ahead = check_at(&proof, first - 1).unwrap_err();
    assert_eq!(ahead, ProofError::OutOfTime { skew_ms: 120_001 });
    golden::check("proof-errors.txt", &format!("{behind}\n{ahead}\n"));
    assert!(matches!(
        check_at(&proof, 0),
        Err(ProofError::OutOfTime { .. })
    ));
    assert!(matches!(
        check_at(&proof, u64::MAX),
        Err(ProofError::OutOfTime { skew_ms: i64::MIN })
    ));
}

#[test]
fn a_token_keeps_its_form_and_reads_back() {
    let text = token().to_string();
    golden::check("token.txt", &(text.clone() + "\n"));
    assert_eq!(text.parse(), Ok(token()));
    assert_eq!(
        format!("  {text}\n").parse(),
        Ok(token()),
        "copied with what stands around it"
    );
}

#[test]
fn half_a_token_is_refused() {
    let text = token().to_string();
    for length in 0..text.len() {
        assert!(
            text[..length].parse::<EnrolmentToken>().is_err(),
            "{length} bytes"
        );
    }
    assert!("haar2.e30".parse::<EnrolmentToken>().is_err());
    assert!(
        format!("haar1.{}", "A".repeat(10_000))
            .parse::<EnrolmentToken>()
            .is_err()
    );
}

proptest! {
    #[test]
    fn no_text_makes_the_parsers_panic_or_passes_for_a_proof(text in "\\PC{0,80}|haar1\\.[A-Za-z0-9_-]{0,80}|haar-proof-1\\.[A-Za-z0-9_-]{0,60}\\.[A-Za-z0-9_-]{86}") {
        prop_assert!(check_at(&text, NOW_MS).is_err());
        let _ = claimed_subject(&text);
        let _ = text.parse::<EnrolmentToken>();
    }

    #[test]
    fn a_proof_holds_whatever_it_states(subject in "[a-z0-9]{1,60}", issued_ms in 0..=NUMBER_MAX, nonce in "[0-9a-f]{32}") {
        let claims = Claims { subject, issued_ms, nonce, ..claims() };
        let proof = make(&claims, &key(2));
        let checked = check(&proof, &key(2).public(), Audience::Relay, &site(), &claims.subject, None, issued_ms);
        prop_assert_eq!(checked, Ok(claims));
    }

    #[test]
    fn a_proof_with_a_number_out_of_range_is_none(issued_ms in NUMBER_MAX + 1..) {
        let claims = Claims { issued_ms, ..claims() };
        let proof = make(&claims, &key(2));
        let checked = check(&proof, &key(2).public(), Audience::Relay, &site(), &claims.subject, None, issued_ms);
        prop_assert!(checked.is_err());
    }
}
