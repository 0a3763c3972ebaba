//! Services and EndpointSlices to tables to maps.
