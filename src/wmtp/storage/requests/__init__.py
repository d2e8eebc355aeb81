"""What goes over the wire: answers of object stores and of the Hub, their failures and versions, in our own words."""
