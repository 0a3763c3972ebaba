//! Configuration files, stored values, certificate requests.

use std::str;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use skep_auth::audit::Policy;
use skep_auth::certificates::Request;
use skep_auth::configuration::{Authentication, Authorization};

use crate::Target;

/// Every configuration file of the API server.
pub(crate) const CONFIGURATION: Target = Target {
    name: "configuration",
    about: "configuration files of the API server",
    run: configuration,
    seeds: &[
        b"apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\nanonymous: {enabled: true, conditions: [{path: /x}]}\njwt:\n- issuer: {url: https://a.example, audiences: [a]}\n  claimMappings: {username: {expression: 'claims.sub'}, extra: [{key: a.example/b, valueExpression: claims.c}]}\n  claimValidationRules: [{expression: 'claims.d == 1'}]\n",
        b"apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\nauthorizers: [{type: Node, name: n}, {type: Webhook, name: w, webhook: {timeout: 3s, subjectAccessReviewVersion: v1, failurePolicy: Deny, matchConditionSubjectAccessReviewVersion: v1, matchConditions: [{expression: request.uid == ''}], connectionInfo: {type: KubeConfigFile, kubeConfigFile: /x}}}]\n",
        b"apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources: [{resources: [secrets, '*.apps'], providers: [{kms: {apiVersion: v2, name: a, endpoint: 'unix:///@s', timeout: 1s}}, {aesgcm: {keys: [{name: a, secret: AAAAAAAAAAAAAAAAAAAAAA==}]}}, {identity: {}}]}]\n",
        b"apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules: [{level: Metadata, verbs: [get], resources: [{group: '', resources: ['pods/*']}]}, {level: None, nonResourceURLs: ['/a*']}]\n",
    ],
};

fn configuration(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    drop(Authentication::parse(text, &[]));
    drop(Authorization::parse(text));
    drop(Policy::parse(text));
    skep_storage::encryption::fuzz(bytes);
}

/// Stored values under KMS: nobody forges one.
pub(crate) const SEALED: Target = Target {
    name: "sealed",
    about: "values encrypted under a KMS plug-in",
    run: skep_storage::encryption::fuzz,
    seeds: &[b"\x0a\x03abc\x12\x01k\x1a\x02ds\x22\x0f\x0a\x0ba.b.example\x12\x00\x28\x01", b"\x0a\x01a"],
};

/// PKCS#10, in DER.
pub(crate) const CERTIFICATE_REQUEST: Target = Target {
    name: "certificate-request",
    about: "certificate signing requests",
    run: certificate_request,
    seeds: &[
        b"\x30\x81\x9f\x30\x47\x02\x01\x00\x30\x13\x31\x11\x30\x0f\x06\x03\x55\x04\x03\x0c\x08node:one",
        b"\x30\x00",
    ],
};

fn certificate_request(bytes: &[u8]) {
    let pem = format!(
        "-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n",
        STANDARD.encode(bytes)
    );
    assert!(Request::from_base64(&STANDARD.encode(pem)).is_err(), "nobody signs by chance");
    if let Ok(text) = str::from_utf8(bytes) {
        drop(Request::from_base64(text));
    }
}
