"""The report as one HTML file: data -> context -> template. It needs nothing beside itself, and asks for nothing."""
