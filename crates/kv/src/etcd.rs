//! [`Etcd`]: values in etcd.
