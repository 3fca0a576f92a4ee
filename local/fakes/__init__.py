"""Stand-ins for AWS and Smartcar, on real sockets of this machine."""
