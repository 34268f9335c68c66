"""int8 forms of ONNX graphs, what calibration texts say about them, and which stages stay fp32."""
