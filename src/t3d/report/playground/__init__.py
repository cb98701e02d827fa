"""The page that ``t3d serve`` shows at ``/``: ask the model, and see its tokens committed step by step."""
