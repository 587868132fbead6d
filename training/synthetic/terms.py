"""English words and phrases of the demo corpus, each with the one Vietnamese expression it stands for.

A category gathers terms that fit the same gap of a sentence. Only the generator reads this list: an
evaluation that looked words up here would be marking its own homework.
"""

from __future__ import annotations

TERMS: dict[str, dict[str, str]] = {
    "document": {
        "email": "thư điện tử",
        "file": "tệp tin",
        "report": "báo cáo",
        "plan": "kế hoạch",
        "document": "tài liệu",
        "link": "đường dẫn",
        "feedback": "phản hồi",
    },
    "document_verb": {
        "check": "kiểm tra",
        "share": "chia sẻ",
        "update": "cập nhật",
        "review": "xem lại",
        "download": "tải xuống",
        "upload": "tải lên",
    },
    "event": {
        "meeting": "cuộc họp",
        "interview": "buổi phỏng vấn",
        "party": "bữa tiệc",
        "event": "sự kiện",
        "livestream": "buổi phát trực tiếp",
    },
    "event_verb": {"confirm": "xác nhận", "cancel": "hủy", "join": "tham gia"},
    "device": {"laptop": "máy tính xách tay", "phone": "điện thoại", "headphone": "tai nghe"},
    "media": {
        "video": "đoạn phim",
        "game": "trò chơi",
        "comment": "bình luận",
        "post": "bài đăng",
    },
    "person": {
        "boss": "sếp",
        "manager": "người quản lý",
        "leader": "trưởng nhóm",
        "customer": "khách hàng",
        "team": "nhóm",
    },
    "place": {
        "office": "văn phòng",
        "gym": "phòng tập",
        "coffee shop": "quán cà phê",
        "hotel": "khách sạn",
    },
    "mood": {"busy": "bận", "happy": "hạnh phúc", "stress": "căng thẳng"},
    "character": {"friendly": "thân thiện", "professional": "chuyên nghiệp"},
    "quality": {"cute": "dễ thương", "perfect": "hoàn hảo"},
    "other": {
        "important": "quan trọng",
        "online": "trực tuyến",
        "voucher": "phiếu giảm giá",
        "order": "đơn hàng",
        "ticket": "vé",
        "account": "tài khoản",
        "book": "đặt",
        "support": "hỗ trợ",
        "by the way": "nhân tiện",
        "thank you": "cảm ơn",
        "good morning": "chào buổi sáng",
        "last minute": "phút chót",
        "work from home": "làm việc tại nhà",
        "no problem": "không sao",
        "weekend": "cuối tuần",
        "business trip": "công tác",
        "deadline": "hạn chót",
    },
}

NAMES = ("TikTok", "Facebook", "YouTube")
"""Proper names: spoken in English and tagged so, and left as they are by the translation."""


def lexicon() -> dict[str, str]:
    """Every English term with its Vietnamese expression."""
    return {english: vietnamese for terms in TERMS.values() for english, vietnamese in terms.items()}
