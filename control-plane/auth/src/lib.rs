//! Who is asking, and may they: authentication, authorization and the cluster's PKI.
